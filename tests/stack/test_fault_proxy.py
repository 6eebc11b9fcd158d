"""The proxy before a server that answers what it is sent: each fault is felt, and ends."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.stack.fault_proxy import FaultProxy, start_fault_proxy

SOON = 0.2
"""Seconds without an answer that count as none."""


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while chunk := self.request.recv(65_536):
                self.request.sendall(chunk)
        except OSError:  # the proxy was told to cut the connection
            pass


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[FaultProxy]:
    with start_fault_proxy(echo_port) as started:
        yield started


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(client: socket.socket, text: bytes = b"hello") -> bytes:
    client.sendall(text)
    return read(client, len(text))


def read(client: socket.socket, num_bytes: int) -> bytes:
    answer = b""
    while len(answer) < num_bytes and (chunk := client.recv(65_536)):
        answer += chunk
    return answer


def get_proxy_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "fault-proxy"}


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SOON)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def test_everything_passes_whole_and_in_order(proxy):
    text = bytes(range(256)) * 4096
    with connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(text,), daemon=True).start()
        assert read(client, len(text)) == text


def test_a_delay_is_felt_both_ways_and_ends(proxy):
    with connect(proxy) as client:
        proxy.delay(0.05)
        started = time.monotonic()
        assert ask(client) == b"hello"
        assert time.monotonic() - started >= 0.1
        proxy.delay(30)
        proxy.pass_on()
        assert ask(client) == b"hello"


def test_a_stall_takes_connections_and_bytes_and_answers_nothing_until_it_ends(proxy):
    with connect(proxy) as before:
        assert ask(before) == b"hello"
        proxy.stall()
        with connect(proxy) as after:
            for client in (before, after):
                client.sendall(b"held")
                assert is_silent(client)
            proxy.pass_on()
            assert [read(before, 4), read(after, 4)] == [b"held", b"held"]


def test_a_reset_cuts_open_connections_with_rst_and_takes_new_ones(proxy):
    with connect(proxy) as client:
        ask(client)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_a_reset_cuts_connections_that_are_stalled_too(proxy):
    with connect(proxy) as client:
        ask(client)
        proxy.stall()
        client.sendall(b"held")
        assert is_silent(client)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_new_connections_are_refused_and_open_ones_go_on_until_it_passes_again(proxy):
    port = proxy.port
    with connect(proxy) as client:
        ask(client)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(client) == b"hello"
    proxy.pass_on()
    with connect(proxy) as client:
        assert ask(client) == b"hello"
    assert (proxy.port, proxy.num_accepted) == (port, 2)


def test_a_server_that_is_not_there_closes_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    with start_fault_proxy(nobody) as proxy, connect(proxy) as client:
        assert client.recv(1) == b""


def test_it_ends_with_connections_open_and_stalled(echo_port):
    before = get_proxy_threads()  # other tests' worlds stand behind a proxy, too
    with start_fault_proxy(echo_port) as proxy:
        client = connect(proxy)
        ask(client)
        proxy.stall()
        client.sendall(b"held")
    with client, suppress(ConnectionResetError):  # which, if the proxy had not read what was held
        assert client.recv(1) == b""
    assert get_proxy_threads() == before
