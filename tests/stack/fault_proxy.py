"""A TCP proxy on loopback that fails on command: what stands before Redis when its network is bad.

It runs an event loop in a thread of the test's process. Every fault is switched on and off while
connections are open, and touches those that are open as well as those to come.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

CHUNK_BYTES = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, 0 s: closing sends RST and not FIN


@dataclass(eq=False)
class _Relay:
    """One client's connection and the one made for it."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def close(self, *, with_reset: bool = False) -> None:
        for writer in self.writers:
            if with_reset:
                plug = writer.get_extra_info("socket")
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                writer.transport.abort()
            else:
                writer.close()


class FaultProxy:
    """Forwards to a port of loopback, until told to fail; see ``start_fault_proxy``."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.num_accepted = 0
        self._delay_seconds = 0.0
        self._relays: set[_Relay] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="fault-proxy", daemon=True
        )

    def pass_on(self) -> None:
        """Forward everything at once, first what a stall held back; take connections."""
        self._do(lambda: self._set(delay_seconds=0.0, is_stalled=False))
        self._wait_for(self._listen)

    def delay(self, seconds: float) -> None:
        """Hold each chunk, either way, for so long."""
        self._do(lambda: self._set(delay_seconds=seconds, is_stalled=False))

    def stall(self) -> None:
        """Take connections and bytes, and forward nothing."""
        self._do(lambda: self._set(delay_seconds=0.0, is_stalled=True))

    def reset(self) -> None:
        """Cut the connections that are open with RST; new ones are taken."""
        self._do(lambda: self._close_relays(with_reset=True))

    def refuse(self) -> None:
        """Refuse new connections as a stopped server's port does; open ones go on."""
        self._wait_for(self._stop_listening)

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self.pass_on()

    def stop(self) -> None:
        """Close every connection, and end the thread."""
        self.refuse()
        self._wait_for(self._end_relays)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _set(self, *, delay_seconds: float, is_stalled: bool) -> None:
        self._delay_seconds = delay_seconds
        (self._flows.clear if is_stalled else self._flows.set)()

    async def _listen(self) -> None:
        if self._server is None:
            # The same port again: clients know only that one.
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()  # not wait_closed: open connections go on
            self._server = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_accepted += 1
        relay = _Relay([writer])
        self._relays.add(relay)
        try:
            with suppress(OSError):
                there, to_there = await asyncio.open_connection("127.0.0.1", self.target_port)
                relay.writers.append(to_there)
                # The first side to end ends both: half-closed connections are of no use to Redis.
                ends = [
                    asyncio.create_task(self._forward(reader, to_there)),
                    asyncio.create_task(self._forward(there, writer)),
                ]
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for end in ends:
                        end.cancel()
                    await asyncio.gather(*ends, return_exceptions=True)
        finally:
            relay.close()
            self._relays.discard(relay)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._flows.wait()
            writer.write(chunk)
            await writer.drain()

    def _close_relays(self, *, with_reset: bool) -> None:
        for relay in self._relays:
            relay.close(with_reset=with_reset)

    async def _end_relays(self) -> None:
        """Cut what is open, and wait for the tasks behind it."""
        self._close_relays(with_reset=False)
        self._flows.set()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _do(self, function: Callable[[], object]) -> None:
        """Call a function in the loop's thread, and return when it has been called."""

        async def call() -> None:
            function()

        self._wait_for(call)

    def _wait_for(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(function(), self._loop).result(10)


@contextmanager
def start_fault_proxy(target_port: int) -> Iterator[FaultProxy]:
    """Run a proxy before a server's port beside the block; it passes everything on at first."""
    proxy = FaultProxy(target_port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
