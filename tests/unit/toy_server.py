"""A small HTTP server in a thread, whose speed and misbehaviour a test chooses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

Answer = Callable[[bytes], bytes]


def render_answer(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> bytes:
    """Render one answer with its length."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


class ToyServer:
    """Answers each request with ``answer(body)``; an empty answer closes the connection.

    ``capacity``: requests a second it can work off, one after the other. ``stall``: from when on
    (seconds after the first request) and for how long it answers nothing. ``cuts``: whether it
    closes the connections that waited through the stall instead of answering.
    """

    def __init__(
        self,
        answer: Answer = lambda _: render_answer(),
        *,
        capacity: float | None = None,
        stall: tuple[float, float] | None = None,
        cuts: bool = False,
        piece_bytes: int | None = None,
    ) -> None:
        self.answer, self.capacity, self.stall = answer, capacity, stall
        self.cuts, self.piece_bytes = cuts, piece_bytes
        self.bodies: list[bytes] = []
        self._first: float | None = None
        self._free = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ToyServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def kill(self) -> None:
        """Stop listening and cut every connection, as the end of the process would."""
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _kill(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.bodies.append(body)
                has_stalled = await self._take_time()
                answer = self.answer(body)
                if not answer or (has_stalled and self.cuts):
                    writer.transport.abort()
                    return
                await self._send(writer, answer)

    async def _take_time(self) -> bool:
        """Wait as long as this request takes; say whether it met the stall."""
        now = time.perf_counter()
        if self._first is None:
            self._first = self._free = now
        if self.capacity is not None:
            self._free = max(self._free, now) + 1 / self.capacity
            await asyncio.sleep(self._free - now)
        if self.stall is not None:
            start, length = self._first + self.stall[0], self.stall[1]
            if start <= now < start + length:
                await asyncio.sleep(start + length - now)
                return True
        return False

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        size = self.piece_bytes or len(answer)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await writer.drain()
            if self.piece_bytes is not None:
                await asyncio.sleep(0.002)
