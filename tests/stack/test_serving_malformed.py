"""What the fast lane answers to bodies that are wrong, large, deep, slow, or broken off."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.stack.body_mutations import MUTATIONS
from tests.stack.served_world import ServedWorld
from tests.stack.stream_world import wait_until

pytestmark = pytest.mark.stack
NUM_MALFORMED = 5_000
"""To each of the two routes."""
BETWEEN = 500
HEADERS = {"content-type": "application/json"}


def make_body(world: ServedWorld, route: str) -> bytes:
    wrapped = {"/v1/score": world.messages[0], "/v1/score_batch": {"transactions": world.messages}}
    return json.dumps(wrapped[route]).encode()


@contextmanager
def connect(world: ServedWorld) -> Iterator[http.client.HTTPConnection]:
    """A connection that is kept alive, and made anew if the service closes it."""
    parts = urlsplit(world.url)
    assert parts.hostname is not None
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
        yield connection


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", path, body, HEADERS)
    response = connection.getresponse()
    return response.status, response.read()


def count_requests(world: ServedWorld, outcome: str) -> float:
    time.sleep(0.6)  # the worker publishes four times a second
    shown = world.read_metrics()
    name = 'throughline_requests_total{{outcome="{}",route="{}"}}'
    return sum(shown.get(name.format(outcome, route), 0.0) for route in ("score", "score_batch"))


@pytest.mark.parametrize("route", ["/v1/score", "/v1/score_batch"])
def test_no_mutated_body_costs_more_than_its_own_refusal(served_world, route, record_property):
    valid = make_body(served_world, route)
    generator = random.Random(20261124)
    statuses: Counter[int] = Counter()
    failed, worker = count_requests(served_world, "failed"), served_world.get_state()["worker"]
    with connect(served_world) as connection:
        before = post_until_whole(connection, route, valid)
        for number in range(NUM_MALFORMED):
            mutate = generator.choice(MUTATIONS)
            body = mutate(valid, generator)
            status, answer = post(connection, route, body)
            statuses[status] += 1
            assert status in (200, 400), (body[:2000], answer)
            assert status == 200 or json.loads(answer).keys() == {"error"}
            assert b"Traceback" not in answer
            if number % BETWEEN == 0:
                assert post_until_whole(connection, route, valid) == before
        assert post_until_whole(connection, route, valid) == before
    record_property("statuses", dict(statuses))
    assert statuses[400] > 0.5 * NUM_MALFORMED
    assert statuses[200] > 0  # some mutations leave a body valid
    assert count_requests(served_world, "failed") == failed
    assert served_world.get_state()["worker"] == worker


def post_until_whole(connection: http.client.HTTPConnection, route: str, body: bytes) -> bytes:
    """Ask until the answer is not degraded: on a busy machine the store may be too late."""
    for _attempt in range(200):
        status, answer = post(connection, route, body)
        assert status == 200
        if b"online store unavailable" not in answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("the service answers without its store")


@pytest.mark.parametrize("route", ["/v1/score", "/v1/score_batch"])
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_of_ten_megabytes_is_refused_by_its_size(served_world, route, is_announced):
    chunk = b" " * 1_000_000
    body: Any = chunk * 10 if is_announced else iter([chunk] * 10)
    answer = httpx.post(
        served_world.url + route, content=body, headers=HEADERS, timeout=30, trust_env=False
    )
    assert answer.status_code == 413
    assert "at most 2097152 bytes" in answer.json()["error"]


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
def test_a_body_of_another_type_is_refused_by_its_type(served_world, kind):
    answer = httpx.post(
        f"{served_world.url}/v1/score",
        content=b"{}",
        headers={"content-type": kind},
        trust_env=False,
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("kind", ["Application/JSON", "application/json;charset=utf-8"])
def test_the_type_of_a_body_is_read_without_its_case_and_parameters(served_world, kind):
    answer = httpx.post(
        f"{served_world.url}/v1/score",
        content=make_body(served_world, "/v1/score"),
        headers={"content-type": kind},
        trust_env=False,
    )
    assert answer.status_code == 200


def open_request(world: ServedWorld, path: str, body: bytes) -> socket.socket:
    """Send a request's head, and nothing of its body."""
    parts = urlsplit(world.url)
    plug = socket.create_connection((parts.hostname, parts.port), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    plug.sendall(head.encode())
    return plug


def test_a_body_that_comes_byte_by_byte_is_answered_and_holds_nobody_up(served_world):
    body = make_body(served_world, "/v1/score")
    with open_request(served_world, "/v1/score", body) as slow, connect(served_world) as other:
        for byte in body:
            slow.sendall(bytes([byte]))
            assert post(other, "/v1/score", body)[0] == 200
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("path", ["/v1/score", "/predict"])
def test_a_body_that_is_broken_off_is_no_request(served_world, path):
    message = served_world.messages[0]
    body = json.dumps({"transaction": message} if path == "/predict" else message).encode()
    invalid, scored = count_requests(served_world, "invalid"), served_world.get_state()
    for _ in range(20):
        with open_request(served_world, path, body + b" ") as plug:
            plug.sendall(body)  # all but the last byte
    assert count_requests(served_world, "invalid") == invalid
    assert served_world.get_state()["transactions"] == scored["transactions"]
    wait_until(served_world.is_whole)
