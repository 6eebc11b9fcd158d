"""Nothing but uvicorn: reads the body, answers always the same. The ceiling for any service here.

Run as ``uvicorn serving.peer_constant:answer``; the answer stands in ``THROUGHLINE_PEER_ANSWER``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from serving.peer_settings import ANSWER_VARIABLE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with the same JSON, under the headers that our service sends."""
    if scope["type"] != "http":
        return
    message = await receive()
    while message.get("more_body", False):
        message = await receive()
    content = os.environ[ANSWER_VARIABLE].encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
