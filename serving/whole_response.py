"""A response becomes one write to the socket, where uvicorn would make two.

ASGI sends a response's start and its body as two messages, and uvicorn writes each at once: two
system calls, and two wake-ups of the client, for one small answer. Of a short request that is a
third of the time. Where the server is uvicorn's httptools, and nothing stands in between, head and
body go out together; everywhere else the two messages are sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from starlette.types import Send

_HEADS = {
    status.value: b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n"
    % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


def render_head(status: int, content: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    r"""Return the bytes before a JSON body.

    >>> render_head(200, b"{}", [(b"a", b"b")]).split(b"\r\n")[0:3:2]
    [b'HTTP/1.1 200 OK', b'a: b']
    """
    parts = [_HEADS[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"content-length: %d\r\n\r\n" % len(content))
    return b"".join(parts)


async def send_json(send: Send, status: int, content: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Answer with JSON.

    Args:
        send: What ASGI handed to the application.
        status: Of the response.
        content: The body, encoded.
        headers: Further ones, names in lower case.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is RequestResponseCycle and _can_write(cycle):
        _write_whole(cycle, status, content, headers)
        return
    length = (b"content-length", b"%d" % len(content))
    kind = (b"content-type", b"application/json")
    await send(
        {"type": "http.response.start", "status": status, "headers": [kind, length, *headers]}
    )
    await send({"type": "http.response.body", "body": content})


def _can_write(cycle: RequestResponseCycle) -> bool:
    """Whether nothing has been sent, the client listens and its buffer is not full."""
    return not (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.access_log
        or cycle.scope["method"] == "HEAD"
    )


def _write_whole(
    cycle: RequestResponseCycle,
    status: int,
    content: bytes,
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    """Do what the cycle does for a start and a last body, in one write."""
    if (b"connection", b"close") in headers:
        cycle.keep_alive = False
    elif not cycle.keep_alive:
        headers = (*headers, (b"connection", b"close"))
    head = render_head(status, content, (*cycle.default_headers, *headers))
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(head + content)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
