"""Just enough HTTP/1.1 for a load generator: bodies become request bytes, bytes become answers.

One request is under way on a connection at a time. A head that was seen before is looked up rather
than parsed again: heads repeat (the date changes once a second), so the careful parser is rarely
needed and may take its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SERIAL_FIELD = b"################"
"""Where a body holds these characters, each request puts its own number of 16 digits."""
MAX_KNOWN_HEADS = 1024
MAX_HEAD_BYTES = 65_536
NO_BODY = (204, 304)

Answer = tuple[int, bytes, bool]
"""Status, body, and whether the connection may carry another request."""


class Head(NamedTuple):
    """What the head of an answer says; ``length`` is None where the body ends with the stream."""

    status: int
    length: int | None
    keeps_alive: bool


def render_request(
    body: bytes, *, host: str, path: str, headers: Mapping[str, str] | None = None
) -> tuple[bytes, bytes | None]:
    """Render one POST of JSON, cut where its serial number goes.

    Returns:
        The bytes before and after the number; None for the latter if the body has no
        ``SERIAL_FIELD``, so that every request is the same.

    >>> before, after = render_request(b'{"id":"################"}', host="h", path="/")
    >>> before[-7:], after
    (b'{"id":"', b'"}')
    """
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    before, field, after = body.partition(SERIAL_FIELD)
    return "\r\n".join(lines).encode("latin-1") + before, after if field else None


def parse_head(head: bytes) -> Head:
    r"""Read an answer's status line and the headers that say where its body ends.

    Args:
        head: From the status line up to the empty line, which is left out.

    Raises:
        ValueError: If this is no HTTP/1 answer, or its body cannot be delimited; in few words,
            since errors are counted by them.

    Source: RFC 9112, sections 4, 6.3 and 9.3.

    >>> parse_head(b"HTTP/1.1 200 OK\r\nCONTENT-length:  5")
    Head(status=200, length=5, keeps_alive=True)
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (rest[:3].isdecimal() and rest[3:4] in " "):
        raise ValueError("no HTTP answer")
    status, keeps_alive = int(rest[:3]), version == "HTTP/1.1"
    lengths: set[str] = set()
    for line in lines:
        name, _, value = line.partition(":")
        match name.lower():
            case "content-length":
                lengths.update(item.strip() for item in value.split(","))
            case "transfer-encoding":
                raise ValueError("chunked answer: not supported")
            case "connection":
                options = {item.strip().lower() for item in value.split(",")}
                keeps_alive = "close" not in options and (keeps_alive or "keep-alive" in options)
    if status < 200 or status in NO_BODY:
        return Head(status, 0, keeps_alive)
    length = _read_length(lengths)
    return Head(status, length, keeps_alive and length is not None)


def _read_length(lengths: set[str]) -> int | None:
    if not lengths:
        return None
    (text, *others) = lengths
    if others or not (text.isascii() and text.isdecimal()):
        raise ValueError("wrong content-length")
    return int(text)


class KnownHeads(dict[bytes, Head]):
    """Heads parsed before; a new one is parsed when it is asked for."""

    def __missing__(self, head: bytes) -> Head:
        if len(self) >= MAX_KNOWN_HEADS:  # a head that differs every time must not fill memory
            self.clear()
        parsed = self[head] = parse_head(head)
        return parsed


class AnswerReader:
    """Puts answers together from the pieces in which they arrive on one connection."""

    __slots__ = ("_heads", "_rest")

    def __init__(self, heads: KnownHeads) -> None:
        self._heads = heads
        self._rest = b""

    def feed(self, data: bytes) -> Answer | None:
        """Take the next piece; return the answer once it is whole.

        Raises:
            ValueError: If this is no answer, or more than one; the connection is of no use then.
        """
        if self._rest:
            data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            status, length, keeps_alive = self._heads[data[:end]]
            if status < 200:  # 100 Continue and its like come before the answer
                data = data[end + 4 :]
                continue
            missing = None if length is None else end + 4 + length - len(data)
            if missing is None or missing > 0:
                break
            if missing < 0:
                raise ValueError("bytes after the answer")
            self._rest = b""
            return status, data[end + 4 :], keeps_alive
        else:
            if len(data) > MAX_HEAD_BYTES:
                raise ValueError("endless head")
        self._rest = data
        return None

    def finish(self) -> Answer:
        """Take the end of the stream, which is the end of an answer without a length.

        Raises:
            ValueError: If the answer is not whole.
        """
        head, end, body = self._rest.partition(b"\r\n\r\n")
        if end and (parsed := self._heads[head]).length is None:
            return parsed.status, body, False
        raise ValueError("connection closed")
