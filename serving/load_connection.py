"""One keep-alive connection of the load generator: at most one request is under way on it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from serving.load_http import AnswerReader, KnownHeads

State = Literal["closed", "connecting", "idle", "busy"]


class Connection:
    """A non-blocking socket, what is under way on it, and since when.

    Attributes:
        state: What it is doing; ``busy`` means that a request is under way.
        due: When that request was due; ``sent``, when it really left.
        freed: When the connection last became idle.
        retry: When a closed connection may be opened again.
        row: Which body was sent, and ``serial``, with which number.
        unsent: The end of the request, where the socket could not take all of it.
    """

    __slots__ = (
        *("_address", "due", "fd", "freed", "reader", "recv", "retry", "row", "send", "sent"),
        *("serial", "socket", "state", "unsent"),
    )

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.due = self.sent = self.freed = self.retry = 0.0
        self.row, self.serial, self.unsent = 0, b"", b""
        self.state: State = "closed"
        self.fd = -1
        self.send: Callable[[bytes], int]
        self.recv: Callable[[int], bytes]

    def open(self, heads: KnownHeads) -> None:
        """Begin to connect; the socket becomes writable when that has ended, well or not.

        Raises:
            OSError: If it ends badly at once.
        """
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = self.socket.connect_ex(self._address)
        if status not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(status, os.strerror(status))
        self.fd = self.socket.fileno()
        self.send, self.recv = self.socket.send, self.socket.recv
        self.reader = AnswerReader(heads)
        self.state = "connecting"

    def has_failed(self) -> bool:
        """Say whether connecting has ended badly."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def close(self) -> None:
        """Give the socket up."""
        with suppress(OSError):
            self.socket.close()
        self.state, self.unsent, self.retry = "closed", b"", 0.0
