"""One connection to Redis for an event loop: commands go out in one write, replies come in order.

A pipeline of redis-py's asyncio client costs some 100 us; here a batch costs one write, hiredis'
parsing and one future. The connection speaks RESP3 with tracking: Redis itself says when a key that
was read with ``CLIENT CACHING YES`` has changed, in order with the replies.

Source:
    Redis documentation, "Client-side caching reference" and the RESP3 specification.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

import hiredis

Result = TypeVar("Result")
CONNECT_SECONDS = 2.0
SLICE_BYTES = 1 << 14
"""Fed to hiredis at once. With each reply it moves all that it was fed and has not parsed yet to
the front: a quarter of a megabyte at once makes a reply of 4 kB three times as expensive."""


class RedisLink(asyncio.Protocol):
    """A connection; make one with ``open_link``.

    Args:
        on_change: Called with the keys that changed, or with ``None`` when any may have.
    """

    def __init__(self, on_change: Callable[[list[bytes] | None], None]) -> None:
        self._on_change = on_change
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Batch] = deque()
        self.is_open = False
        self.num_received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, error: Exception | None) -> None:
        """Fail every batch that waits for replies."""
        self.is_open = False
        while self._waiting:
            self._waiting.popleft().fail(error or ConnectionResetError("Redis closed the link"))

    def data_received(self, data: bytes) -> None:
        """Hand replies to the batches that wait for them, oldest first."""
        self.num_received += 1
        waiting = self._waiting
        try:
            for reply in parse_replies(self._reader, data, len(data)):
                if type(reply) is hiredis.PushNotification:
                    self._take_push(reply)
                    continue
                batch = waiting[0]
                batch.replies.append(reply)
                if len(batch.replies) == batch.num_replies:
                    waiting.popleft()
                    batch.resolve()
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(error)

    def call(
        self, commands: bytes, *, num_replies: int, decode: Callable[[list[Any]], Result]
    ) -> asyncio.Future[Result]:
        """Send packed commands.

        Args:
            commands: As ``pack`` makes them, any number.
            num_replies: How many replies they get.
            decode: Called with the replies the moment they are there; its result, or what it
                raises, becomes the future's.

        Raises:
            ConnectionError: If the link is closed.
        """
        if not self.is_open or self._transport is None:
            raise ConnectionResetError("the link to Redis is closed")
        batch = _Batch(num_replies, decode)
        self._waiting.append(batch)
        self._transport.write(commands)
        return batch.future

    def close(self, error: Exception | None = None) -> None:
        """Close the link; batches under way fail."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(error)

    def _take_push(self, push: Any) -> None:  # noqa: ANN401 - hiredis' list
        if push and push[0] == b"invalidate":
            self._on_change(push[1])


class _Batch:
    """Replies under way, and the future they become."""

    def __init__(self, num_replies: int, decode: Callable[[list[Any]], Any]) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.num_replies = num_replies
        self.replies: list[Any] = []
        self._decode = decode

    def resolve(self) -> None:
        """Hand the replies over, now that they are complete."""
        if self.future.done():  # its caller has given up
            return
        for reply in self.replies:
            if isinstance(reply, Exception):
                self.future.set_exception(reply)
                return
        try:
            self.future.set_result(self._decode(self.replies))
        except Exception as error:  # noqa: BLE001 - the caller's to handle
            self.future.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Give the caller an error instead of replies."""
        if not self.future.done():
            self.future.set_exception(error)


async def open_link(url: str, *, on_change: Callable[[list[bytes] | None], None]) -> RedisLink:
    """Connect, with tracking on.

    Args:
        url: ``redis://[[user]:password@]host:port[/database]``.
        on_change: See ``RedisLink``.

    Raises:
        OSError: If nobody answers there.
        hiredis.ReplyError: If Redis refuses the password, or is older than version 6.
    """
    parts = urlsplit(url)
    async with asyncio.timeout(CONNECT_SECONDS):
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: RedisLink(on_change), parts.hostname or "127.0.0.1", parts.port or 6379
        )
        hello = [b"HELLO", b"3"]
        if parts.password:
            user = unquote(parts.username or "") or "default"
            hello += [b"AUTH", user.encode(), unquote(parts.password).encode()]
        database = (parts.path.strip("/") or "0").encode()
        tracking = [b"CLIENT", b"TRACKING", b"ON", b"OPTIN"]
        try:
            await link.call(
                pack(hello) + pack([b"SELECT", database]) + pack(tracking),
                num_replies=3,
                decode=lambda _replies: None,
            )
        except BaseException:
            link.close()
            raise
    return link


def parse_replies(reader: hiredis.Reader, data: bytes | bytearray, size: int) -> Iterator[Any]:
    """Yield the replies that the first ``size`` bytes of ``data`` complete.

    Raises:
        hiredis.ProtocolError: If it is not Redis that speaks.
    """
    for start in range(0, size, SLICE_BYTES):
        reader.feed(data, start, min(SLICE_BYTES, size - start))  # type: ignore[arg-type]  # buffer
        while (reply := reader.gets()) is not False:
            yield reply


def pack(command: Iterable[bytes]) -> bytes:
    r"""Serialise one command.

    >>> pack([b"GET", b"a"])
    b'*2\r\n$3\r\nGET\r\n$1\r\na\r\n'
    """
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    return packed
