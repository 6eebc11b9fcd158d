"""Connections of clients that send garbage, leave, do not read or never finish: others' go on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry, values
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from serving.fast_lane import FastLane
from serving.lane_metrics import LaneMetrics
from serving.lane_protocol import LaneCycle, LaneProtocol
from tests.unit.scorer_world import FakeArtefact, FakeStore, make_scorer

VALID = {
    "transaction_id": "t1",
    "event_time": "2026-03-01T06:00:00Z",
    "customer_id": "ann",
    "amount": 100.0,
}
MAX_UNREAD_BYTES, MAX_UNREAD_REQUESTS = 100_000, 2000
"""uvicorn is told to stop at 64 KiB unread, some 300 answers; the system holds a few more."""


@pytest.fixture(scope="module", autouse=True)
def _own_values() -> Iterator[None]:
    """Keep values in this process and test: Feast, once imported, has all registries share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.MutexValue)
        yield


def render(body: bytes, *, path: str = "/v1/score") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


REQUEST = render(json.dumps(VALID).encode())


class World:
    """Connections of the lane's protocol, to a scorer whose store can be made to wait."""

    def __init__(self) -> None:
        self.store = FakeStore({"ann": 2})
        self.scorer = make_scorer(self.store)
        self.scorer.lineup.replace_champion("7", FakeArtefact())  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.scorer.metrics = LaneMetrics(registry=self.registry)
        self.lane: Any = SimpleNamespace(
            scorer=self.scorer,
            metrics=self.scorer.metrics,
            tracer=None,
            extra={},
            max_batch_rows=1000,
            max_body_bytes=1_000_000,
        )
        self.state = ServerState()
        self._config = Config(FastLane(_no_other_route, lambda: self.lane), log_config=None)
        self._protocol = type("P", (LaneProtocol,), {"find_lane": staticmethod(lambda: self.lane)})
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        """Open a connection of which the system keeps little that is not read."""
        theirs, ours = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._protocol(self._config, self.state, {}), ours
        )
        client = Client(*await asyncio.open_unix_connection(sock=theirs))
        self._clients.append(client)
        return client

    async def end(self) -> None:
        """Close all connections."""
        self.store.may_go.set()
        for client in self._clients:
            client.writer.transport.abort()
            client.writer.close()
        while self.state.connections:
            await asyncio.sleep(0.001)

    def count(self, outcome: str) -> float | None:
        self.scorer.metrics.publish()
        labels = {"route": "score", "outcome": outcome}
        return self.registry.get_sample_value("throughline_requests_total", labels)

    async def wait_for_asked(self, num: int) -> None:
        """Wait until the store was asked about so many transactions."""
        while sum(map(len, self.store.asked)) < num:
            await asyncio.sleep(0.001)


async def _no_other_route(*_: object) -> None:
    raise AssertionError("only the lane's routes are asked")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes = REQUEST) -> None:
        self.writer.write(data)

    async def receive(self) -> tuple[int, bytes]:
        """Read one response: its status and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)


def run(scenario: Callable[[World], Awaitable[Any]]) -> Any:
    async def play() -> Any:
        world = World()
        try:
            return await asyncio.wait_for(scenario(world), 120)  # the first compiles the kernel
        finally:
            await asyncio.wait_for(world.end(), 20)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play())


def test_garbage_behind_a_good_request_costs_the_others_of_its_batch_nothing():
    async def scenario(world: World) -> Any:
        world.store.may_go.clear()
        first, careless, last = [await world.connect() for _ in range(3)]
        first.send()
        await world.wait_for_asked(1)
        careless.send(REQUEST + b"\x00garbage\r\n\r\n")
        last.send()
        await asyncio.sleep(0.05)
        world.store.may_go.set()
        answers = [await client.receive() for client in (first, last)]
        said = await careless.reader.read()
        return [json.loads(body)["score"] for _, body in answers], said, world.count("ok")

    scores, said, num_ok = run(scenario)
    assert scores == [0.2, 0.2]
    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1") == 1  # nothing follows the response that closes the connection
    assert num_ok == 2


def test_nobody_waits_for_an_answer_on_a_connection_that_is_closing():
    is_closing = [False, True]
    transport = SimpleNamespace(is_closing=lambda: is_closing.pop(0))
    cycle = LaneCycle(SimpleNamespace(transport=transport), World().lane)  # type: ignore[arg-type]
    assert [cycle.done(), cycle.done()] == [False, True]


def test_a_client_who_leaves_before_the_answer_is_not_counted_and_costs_the_others_nothing():
    async def scenario(world: World) -> Any:
        world.store.may_go.clear()
        leaving, staying = await world.connect(), await world.connect()
        leaving.send()
        await world.wait_for_asked(1)
        staying.send()
        leaving.writer.transport.abort()
        while len(world.state.connections) > 1:
            await asyncio.sleep(0.001)
        world.store.may_go.set()
        status, _ = await staying.receive()
        await world.scorer.drain()
        return status, world.count("ok"), world.count("failed")

    assert run(scenario) == (200, 1, 0)


def test_a_body_that_is_refused_anyway_is_not_decoded():
    async def scenario(world: World) -> Any:
        world.store.may_go.clear()
        world.scorer.max_waiting_rows = 1
        waiting, refused = await world.connect(), await world.connect()
        waiting.send()
        await world.wait_for_asked(1)
        refused.send(render(b"{no transaction"))
        status, body = await refused.receive()
        return status, json.loads(body), world.count("shed"), world.count("invalid")

    error = {"error": "overloaded: 1 transactions wait already"}
    assert run(scenario) == (503, error, 1, 0)


def test_a_client_that_does_not_read_is_answered_no_further_until_it_does():
    async def scenario(world: World) -> Any:
        client = await world.connect()
        (server_side,) = world.state.connections
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        flow: FlowControl = server_side.flow  # type: ignore[union-attr]
        num_sent = 0
        while num_sent < MAX_UNREAD_REQUESTS and not flow.read_paused:
            client.send()
            num_sent += 1
            while world.scorer.counts.scored < num_sent and not flow.read_paused:
                await asyncio.sleep(0.0005)
        unread = server_side.transport.get_write_buffer_size()  # type: ignore[union-attr]
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        return num_sent, unread, {(await client.receive())[0] for _ in range(num_sent)}

    num_sent, unread, statuses = run(scenario)
    assert num_sent < MAX_UNREAD_REQUESTS
    assert unread < MAX_UNREAD_BYTES
    assert statuses == {200}


@pytest.mark.parametrize("num_sent", [len(REQUEST) - 1, 0], ids=["half a body", "nothing"])
def test_a_connection_whose_request_is_not_all_there_does_not_hold_up_the_end(num_sent):
    async def scenario(world: World) -> Any:
        client = await world.connect()
        client.send(REQUEST[:num_sent])
        await asyncio.sleep(0.05)
        (connection,) = world.state.connections
        connection.shutdown()  # what uvicorn does to each when it is told to end
        return await client.reader.read()

    assert run(scenario) == b""


def test_a_request_under_way_when_the_service_ends_is_answered_before_its_connection_closes():
    async def scenario(world: World) -> Any:
        world.store.may_go.clear()
        client = await world.connect()
        client.send()
        await world.wait_for_asked(1)
        (connection,) = world.state.connections
        connection.shutdown()
        await asyncio.sleep(0.02)
        world.store.may_go.set()
        return await client.reader.read()

    said = run(scenario)
    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said
