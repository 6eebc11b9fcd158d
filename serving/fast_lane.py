"""Two routes answered before BentoML's middleware: ``/v1/score`` and ``/v1/score_batch``.

BentoML's own path costs a tracing span, a timer and a schema inspection per request; a service of
one small JSON message has use for none of them. Everything else passes on to BentoML, in the same
process and on the same port. Bodies are bounded and must be JSON; an answer is 200, a client error
or 503 with ``Retry-After``, and never a stack trace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from serving.lane_metrics import LaneMetrics
from serving.score_messages import (
    AnswerBatch,
    RequestError,
    encode,
    read_transaction,
    read_transactions,
)
from serving.scorer import NoModelError, OverloadedError, Scorer
from serving.whole_response import send_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("bentoml.throughline")

ROUTES = {"/v1/score": "score", "/v1/score_batch": "score_batch"}
RETRY_AFTER_SECONDS = b"1"
_JSON = (b"content-type", b"application/json")


class Lane(Protocol):
    """The part of a service that the fast lane needs."""

    scorer: Scorer
    metrics: LaneMetrics
    extra: Mapping[str, bool]
    max_batch_rows: int
    max_body_bytes: int


class FastLane:
    """An ASGI application around BentoML's.

    Args:
        app: BentoML's.
        find_lane: Gives the service once it was made; ``None`` before.
    """

    def __init__(self, app: ASGIApp, find_lane: Callable[[], Lane | None]) -> None:
        self._app = app
        self._find_lane = find_lane
        self._lane: Lane | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the lane's routes, and pass everything else on."""
        route = ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        lane = self._lane = self._lane or self._find_lane()
        if lane is None:
            await _refuse_for_now(send, "the service is starting")
            return
        refusal = _check_head(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        body = await _read_body(receive, max_bytes=lane.max_body_bytes)
        if body is None:
            return  # the client has gone before it said all
        if len(body) > lane.max_body_bytes:
            lane.metrics.count_request(route, "too_large")
            reason = f"the body is too large; at most {lane.max_body_bytes} bytes are allowed"
            await _refuse(send, 413, reason, (b"connection", b"close"))
            return
        await _answer(lane, route, body, send)


async def _read_body(receive: Receive, *, max_bytes: int) -> bytes | None:
    """Gather a body, as far as the first byte too many; ``None`` if it is broken off."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        gathered = bytearray(body)
        while message.get("more_body", False) and len(gathered) <= max_bytes:
            message = await receive()
            gathered += message.get("body", b"")
        body = bytes(gathered)
    return None if message["type"] == "http.disconnect" else body


def _check_head(scope: Scope) -> tuple[int, str] | None:
    """Say with which status and why a request is refused before its body is read."""
    if scope["method"] != "POST":
        return 405, "use POST"
    if _JSON in scope["headers"]:
        return None
    for name, value in scope["headers"]:
        if name == b"content-type" and not _is_json(value):
            return 415, "Content-Type must be application/json"
    return None


def _is_json(content_type: bytes) -> bool:
    """Tell a media type from its parameters; its case means nothing (RFC 9110, section 8.3.1)."""
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


async def _answer(lane: Lane, route: str, body: bytes, send: Send) -> None:
    """Decode, score, answer; whatever goes wrong becomes a status and one line."""
    metrics = lane.metrics
    received = time.perf_counter()
    try:
        lane.scorer.check_accepts(1)  # a body that is refused anyway is not worth decoding
        if route == "score":
            transaction = read_transaction(body, extra=lane.extra)
            (answer,) = await lane.scorer.submit((transaction,))
            is_degraded = answer.degraded_reason is not None
            content = encode(answer)
        else:
            transactions = read_transactions(body, extra=lane.extra, max_rows=lane.max_batch_rows)
            answers = await lane.scorer.score(transactions)
            is_degraded = any(answer.degraded_reason is not None for answer in answers)
            content = encode(AnswerBatch(answers))
    except RequestError as error:
        metrics.count_request(route, "invalid")
        await _refuse(send, 400, str(error))
    except OverloadedError as error:
        metrics.count_request(route, "shed")
        await _refuse_for_now(send, f"overloaded: {error}")
    except NoModelError as error:
        metrics.count_request(route, "no_model")
        await _refuse_for_now(send, str(error))
    except Exception:
        logger.exception("a request failed")
        metrics.count_request(route, "failed")
        await _refuse_for_now(send, "the service failed; its log says why")
    else:
        metrics.count_request(route, "degraded" if is_degraded else "ok")
        await send_json(send, 200, content)
        metrics.observe_latencies((time.perf_counter() - received,))


async def _refuse(send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
    await send_json(send, status, encode({"error": reason}), *headers)


async def _refuse_for_now(send: Send, reason: str) -> None:
    await _refuse(send, 503, reason, (b"retry-after", RETRY_AFTER_SECONDS))
