"""A blocking connection to Redis for many commands at once, their replies read by hiredis alone.

redis-py takes some 3 us for each reply beside the parsing, and 15 us for a pipeline's command; a
micro-batch of the stream has thousands of them.
"""

from __future__ import annotations

import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis

from features.redis_link import pack, parse_replies

BUFFER_BYTES = 1 << 18
_MULTI, _EXEC = pack([b"MULTI"]), pack([b"EXEC"])
Call = Callable[[Sequence[bytes]], list[Any]]
"""Sends packed commands, each of which has one reply; returns the replies, in order."""


class RedisPipe:
    """A connection of one's own, to where a client connects; opened when first used.

    Args:
        client: Says where Redis is and how long to wait for it.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._settings = client.connection_pool.connection_kwargs
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()
        self._buffer = bytearray(BUFFER_BYTES)
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Call]:
        """Yield what calls Redis, on one and the same connection as long as the block.

        Raises:
            redis.ConnectionError: If Redis is away, or goes away.
            redis.ResponseError: If it refuses a command.
        """
        with self._lock:
            try:
                if self._socket is None or _is_stale(self._socket):
                    self._connect()
                yield self._call
            except OSError as error:
                self._close()
                raise redis.ConnectionError(str(error)) from error
            except BaseException:
                self._close()  # replies still under way must not meet the next caller
                raise

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        assert self._socket is not None
        self._socket.sendall(b"".join(commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise ConnectionResetError("Redis closed the connection")
            replies += parse_replies(self._reader, self._buffer, size)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise redis.ResponseError(str(reply))
        return replies

    def _connect(self) -> None:
        self._close()
        settings = self._settings
        self._reader = hiredis.Reader()
        self._socket = socket.create_connection(
            (settings.get("host", "localhost"), settings.get("port", 6379)),
            timeout=settings.get("socket_connect_timeout"),
        )
        # Not __del__: a garbage cycle may finalise the socket first, which then warns.
        self._end = weakref.finalize(self, self._socket.close)
        self._socket.settimeout(settings.get("socket_timeout"))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = [pack([b"SELECT", str(settings.get("db") or 0).encode()])]
        if settings.get("password"):
            user, password = settings.get("username") or "default", settings["password"]
            hello.insert(0, pack([b"AUTH", user.encode(), password.encode()]))
        self._call(hello)

    def _close(self) -> None:
        if self._socket is not None:
            self._end()
            self._socket = None


def call_together(call: Call, commands: Sequence[bytes], then: Sequence[bytes] = ()) -> list[Any]:
    """Send commands that take effect all or none, and more after them in the same go.

    Returns:
        What Redis said to the transaction, ``None`` if something watched had changed, and to each
        command after it.

    Raises:
        redis.ResponseError: If Redis refuses one of them.
    """
    replies = call([_MULTI, *commands, _EXEC, *then])[len(commands) + 1 :]
    for reply in replies[0] or ():
        if isinstance(reply, hiredis.ReplyError):
            raise redis.ResponseError(str(reply))
    return replies


def _is_stale(connection: socket.socket) -> bool:
    """Say whether something is to be read that nobody asked for: the end, in all likelihood."""
    return bool(select.select([connection], [], [], 0)[0])
