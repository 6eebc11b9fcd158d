"""The connections of one load worker: open, idle, busy or waiting to be opened again."""

from __future__ import annotations

import select
import time
from collections import deque

from serving.load_connection import Connection
from serving.load_http import KnownHeads

RETRY_SECONDS = 0.1
IN, OUT = select.EPOLLIN, select.EPOLLOUT

clock = time.perf_counter  # CLOCK_MONOTONIC on Linux: the same in all processes


class ConnectionPool:
    """Keeps ``size`` connections to an address open, as far as somebody answers there.

    Attributes:
        epoll: Tells what is ready; anything else may be registered there too.
        by_fd: Connections with a socket, by its file descriptor.
        idle: Those that may take a request; the one that has been idle longest comes first.
        num_opened: How many sockets have been connected.
        num_refused: How many attempts failed.
    """

    def __init__(self, address: tuple[str, int], *, size: int) -> None:
        self.epoll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.idle: deque[Connection] = deque()
        self.size = size
        self.num_opened = self.num_refused = 0
        self._heads = KnownHeads()
        self._closed = [Connection(address) for _ in range(size)]

    @property
    def is_down(self) -> bool:
        """Whether every connection was refused and waits to be tried again."""
        return len(self._closed) == self.size

    def open(self, now: float) -> None:
        """Begin to connect what is closed and not to wait."""
        waiting = []
        for connection in self._closed:
            if connection.retry > now:
                waiting.append(connection)
                continue
            try:
                connection.open(self._heads)
            except OSError:
                self._delay(connection, now)
                waiting.append(connection)
                continue
            self.by_fd[connection.fd] = connection
            self.epoll.register(connection.fd, IN | OUT)
        self._closed = waiting

    def end_connecting(self, connection: Connection, now: float) -> None:
        """Take a connection whose socket became writable as idle, or, if refused, as closed."""
        if connection.has_failed():
            self._drop(connection)
            self._delay(connection, now)
            return
        self.num_opened += 1
        self.epoll.modify(connection.fd, IN)
        connection.state, connection.freed = "idle", now
        self.idle.append(connection)

    def reconnect(self, connection: Connection) -> None:
        """Give up a connection's socket and begin to connect again."""
        self._drop(connection)
        self.open(clock())

    def close(self) -> None:
        """Close every socket."""
        for connection in self.by_fd.values():
            connection.close()
        self.by_fd.clear()
        self.epoll.close()

    def _drop(self, connection: Connection) -> None:
        del self.by_fd[connection.fd]
        connection.close()
        self._closed.append(connection)

    def _delay(self, connection: Connection, now: float) -> None:
        connection.retry = now + RETRY_SECONDS
        self.num_refused += 1
