"""An answer in one write is, byte for byte of meaning, the answer that two messages make."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import ClassVar

import h11
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.whole_response import send_json

CONTENT = b'{"a":1}'
RETRY = (b"retry-after", b"1")
CLOSE = (b"connection", b"close")


async def answer(scope, receive, send):
    """Answer ``/<way>/<status>/<header>`` in one write or in two messages."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    _, way, status, *named = scope["path"].split("/")
    headers = [{"retry": RETRY, "close": CLOSE}[name] for name in named if name]
    if way == "whole":
        await send_json(send, int(status), CONTENT, *headers)
        return

    async def forward(message):  # no bound method of uvicorn's: the two messages are sent
        await send(message)

    await send_json(forward, int(status), CONTENT, *headers)


class CountedTransport:
    """A transport that counts its writes."""

    writes: ClassVar[list[bytes]] = []

    def __init__(self, transport):
        self._transport = transport

    def write(self, data):
        self.writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


class QuietProtocol(HttpToolsProtocol):
    """uvicorn's own, without the access log that pytest's handlers would turn on."""

    def connection_made(self, transport):
        super().connection_made(CountedTransport(transport))
        self.access_log = False


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A real uvicorn, set up as BentoML does."""
    config = uvicorn.Config(
        answer, http=QuietProtocol, loop="uvloop", lifespan="off", log_level="error"
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)
    listener.close()


def render(path, *, method="GET", version="1.1", headers=(), body=b""):
    lines = [f"{method} {path} HTTP/{version}", "host: x", *headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def talk(port, *requests, num_answers=None):
    """Send all requests at once; return the answers, and whether the server then closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"".join(requests))
        answers = []
        client = h11.Connection(h11.CLIENT)
        for request in requests[:num_answers]:
            method, target, version = request.split(b"\r\n")[0].decode().split()
            asked = [("host", "x")] + ([("connection", "close")] if version == "HTTP/1.0" else [])
            client.send(h11.Request(method=method, target=target, headers=asked))
            client.send(h11.EndOfMessage())
            answers.append(read_answer(client, connection))
            if client.our_state is h11.DONE and client.their_state is h11.DONE:
                client.start_next_cycle()
        connection.settimeout(0.3)
        try:
            is_closed = connection.recv(1) == b""
        except TimeoutError:
            is_closed = False
    return answers, is_closed


def read_answer(client, connection):
    body, response = b"", None
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(connection.recv(65536))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            headers = {bytes(n): bytes(v) for n, v in response.headers if n != b"date"}
            return response.status_code, headers, body


CASES = {
    "plain": render("/{}/200"),
    "with a body": render("/{}/200", method="POST", body=b"x" * 100_000),
    "refusal": render("/{}/503/retry", method="POST"),
    "closing": render("/{}/413/close"),
    "asked to close": render("/{}/200", headers=["connection: close"]),
    "HTTP/1.0": render("/{}/200", version="1.0"),
    "HTTP/1.0 kept": render("/{}/200", version="1.0", headers=["connection: keep-alive"]),
    "HEAD": render("/{}/200", method="HEAD"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_write_means_what_two_messages_mean(port, case):
    whole, two = (talk(port, CASES[case].replace(b"{}", way)) for way in (b"whole", b"two"))
    assert whole == two
    ((status, headers, body),), _ = whole
    assert status in (200, 413, 503)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(CONTENT)
    assert body == (b"" if case == "HEAD" else CONTENT)


def test_pipelined_requests_are_answered_each_and_in_order(port):
    asked = [render(f"/{way}/{status}") for status in (200, 400, 503) for way in ("whole", "two")]
    answers, is_closed = talk(port, *asked)
    assert [status for status, _, _ in answers] == [200, 200, 400, 400, 503, 503]
    assert not is_closed


def test_after_an_answer_that_closes_nothing_more_is_answered(port):
    asked = [render("/whole/200"), render("/whole/413/close"), render("/whole/200")]
    answers, is_closed = talk(port, *asked, num_answers=2)
    assert [status for status, _, _ in answers] == [200, 413]
    assert is_closed


@pytest.mark.parametrize(("way", "num_writes"), [("whole", 1), ("two", 2)])
def test_the_head_and_the_body_are_one_write(port, way, num_writes):
    CountedTransport.writes.clear()
    talk(port, render(f"/{way}/200"))
    assert len(CountedTransport.writes) == num_writes
    assert b"".join(CountedTransport.writes).endswith(b"\r\n\r\n" + CONTENT)


def test_the_answer_to_head_has_no_body(port):
    CountedTransport.writes.clear()
    talk(port, render("/whole/200", method="HEAD"))
    assert b"".join(CountedTransport.writes).endswith(b"content-length: 7\r\n\r\n")


def test_where_the_server_is_another_the_two_messages_are_sent():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(send_json(send, 503, CONTENT, RETRY))
    assert sent == [
        {
            "type": "http.response.start",
            "status": 503,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"7"),
                RETRY,
            ],
        },
        {"type": "http.response.body", "body": CONTENT},
    ]
