"""A request's body becomes one JSON message of bounded size, or is refused before it is parsed.

BentoML reads bodies without a limit, and takes form uploads and other encodings beside JSON; a
service that answers JSON needs neither. The body is gathered here, so whatever stands behind
sees at most ``max_bytes`` in one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimitMiddleware:
    """Answer 413 to a body above the limit and 415 to a body that is not JSON.

    Args:
        app: What answers the requests that pass.
        read_limit: Gives the limit in bytes; called once, when the server starts, so that
            importing a service reads no configuration.
    """

    def __init__(self, app: ASGIApp, read_limit: Callable[[], int]) -> None:
        self.app = app
        self.max_bytes = read_limit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gather the body of a POST, then pass it on whole or refuse it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        media_type = headers.get("content-type", "application/json").split(";")[0].strip().lower()
        if media_type != "application/json":
            reason = f"Content-Type is '{media_type[:64]}'; it must be application/json"
            await JSONResponse({"error": reason}, status_code=415)(scope, receive, send)
            return
        try:
            body = await self._read_body(headers, receive)
        except ClientDisconnect:
            return  # nobody waits for an answer
        if body is None:
            reason = f"the body is too large; at most {self.max_bytes} bytes are allowed"
            await JSONResponse({"error": reason}, status_code=413)(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    async def _read_body(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the body, or None as soon as it is known to be too large.

        Raises:
            ClientDisconnect: If the client goes before it has said all.
        """
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self.max_bytes:
            return None
        chunks: list[bytes] = []
        size, is_more = 0, True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            is_more = message.get("more_body", False)
            if size > self.max_bytes:
                return None
        return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Make a ``receive`` that gives the gathered body once, then what the client does next."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
