from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from serving.body_limit import BodyLimitMiddleware

MAX_BYTES = 10


def post(
    chunks: Iterable[bytes], *, headers: dict[str, str] | None = None, method: str = "POST"
) -> tuple[int, str, list[bytes]]:
    """Send a request through the middleware: (status, answer, bodies the application saw)."""
    seen: list[bytes] = []
    sent: list[dict[str, Any]] = []
    parts = list(chunks)
    incoming = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def application(_: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message.get("more_body")
        seen.append(message["body"])
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    scope = {
        "type": "http",
        "method": method,
        "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
    }
    middleware = BodyLimitMiddleware(application, read_limit=lambda: MAX_BYTES)
    asyncio.run(middleware(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode(), seen


def test_a_body_up_to_the_limit_passes_in_one_piece():
    assert post([b"12345", b"67890"])[::2] == (200, [b"1234567890"])


def test_a_body_announced_too_large_is_refused_before_it_is_read():
    status, answer, seen = post([b"x"], headers={"content-length": "11"})
    assert (status, seen) == (413, [])
    assert "at most 10 bytes" in json.loads(answer)["error"]


def test_a_body_that_turns_out_too_large_is_refused():
    assert post([b"12345", b"678901"])[::2] == (413, [])


def test_a_body_that_lies_about_its_length_is_refused():
    assert post([b"12345678901"], headers={"content-length": "2"})[::2] == (413, [])


@pytest.mark.parametrize(
    "media_type", ["application/x-www-form-urlencoded", "application/vnd.bentoml+pickle", "text/a"]
)
def test_a_body_that_is_not_json_is_refused_with_what_it_must_be(media_type):
    status, answer, seen = post([b"x"], headers={"content-type": media_type})
    assert (status, seen) == (415, [])
    assert "must be application/json" in json.loads(answer)["error"]


@pytest.mark.parametrize("headers", [{}, {"content-type": "Application/JSON; charset=utf-8"}])
def test_json_may_be_announced_in_any_spelling_or_not_at_all(headers):
    assert post([b"{}"], headers=headers)[0] == 200


def test_requests_without_a_body_are_left_alone():
    assert post([b""], method="GET", headers={"content-type": "text/plain"})[0] == 200
