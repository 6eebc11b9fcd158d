"""Two routes answered before BentoML's middleware: ``/v1/score`` and ``/v1/score_batch``.

BentoML's own path costs a tracing span, a timer and a schema inspection per request; a service of
one small JSON message has use for none of them. Everything else passes on to BentoML, in the same
process and on the same port. Bodies are bounded and must be JSON; an answer is 200, a client error
or 503 with ``Retry-After``, and never a stack trace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from serving.lane_metrics import LaneMetrics
from serving.lane_reply import Reply
from serving.score_messages import (
    RequestError,
    Transaction,
    encode,
    read_transaction,
    read_transactions,
)
from serving.scorer import BATCH_ROWS, NoModelError, OverloadedError, Scorer
from serving.whole_response import send_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from serving.tracing import RequestTrace, Tracer

logger = logging.getLogger("bentoml.throughline")

ROUTES = {"/v1/score": "score", "/v1/score_batch": "score_batch"}
RETRY_AFTER_SECONDS = b"1"
_ALLOW = (b"allow", b"POST")
_JSON = (b"content-type", b"application/json")


class Lane(Protocol):
    """The part of a service that the fast lane needs."""

    scorer: Scorer
    metrics: LaneMetrics
    tracer: Tracer | None
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
            lane.metrics.count_request(route, "invalid")
            status, reason = refusal
            await _refuse(send, status, reason, *([_ALLOW] if status == 405 else []))
            return
        tracer = lane.tracer
        trace = tracer.start(scope["headers"]) if tracer is not None else None
        body = await _read_body(receive, max_bytes=lane.max_body_bytes)
        if body is None:
            return  # the client has gone before it said all
        if len(body) > lane.max_body_bytes:
            lane.metrics.count_request(route, "too_large")
            reason = f"the body is too large; at most {lane.max_body_bytes} bytes are allowed"
            await _refuse(send, 413, reason, (b"connection", b"close"))
            return
        await _answer(lane, route, body, send, trace)


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


async def _answer(
    lane: Lane, route: str, body: bytes, send: Send, trace: RequestTrace | None
) -> None:
    """Decode, score, answer; whatever goes wrong becomes a status and one line."""
    metrics = lane.metrics
    reply = Reply(lane.scorer, is_batch=route == "score_batch", received=time.perf_counter())
    try:
        lane.scorer.check_accepts(1)  # a body that is refused anyway is not worth decoding
        content = await _score(lane, route, body, reply)
    except RequestError as error:
        outcome = "invalid"
        await _refuse(send, 400, str(error))
    except OverloadedError as error:
        outcome = "shed"
        await _refuse_for_now(send, f"overloaded: {error}")
    except NoModelError as error:
        outcome = "no_model"
        await _refuse_for_now(send, str(error))
    except Exception:
        logger.exception("a request failed")
        outcome = "failed"
        await _refuse_for_now(send, "the service failed; its log says why")
    else:
        outcome = "degraded" if reply.is_degraded else "ok"
        await send_json(send, 200, content)
        metrics.observe_latencies((time.perf_counter() - reply.received,))
    metrics.count_request(route, outcome)
    if trace is not None:
        reply.finish(trace, route=route, outcome=outcome)


async def _score(lane: Lane, route: str, body: bytes, reply: Reply) -> bytes:
    """Return the encoded answers of a body."""
    scorer, extra = lane.scorer, lane.extra
    transactions: Sequence[Transaction]
    if route == "score":
        transactions = (read_transaction(body, extra=extra),)
    else:
        transactions = read_transactions(body, extra=extra, max_rows=lane.max_batch_rows)
    reply.submitted = time.perf_counter()
    if len(transactions) <= BATCH_ROWS:
        scorer.submit_to(transactions, reply, began=reply.received)
    else:
        lane.metrics.observe_stage("decode", reply.submitted - reply.received)
        answers = await scorer.score(transactions)
        answered = time.perf_counter()
        reply.set_result(answers)
        lane.metrics.observe_stage("encode", time.perf_counter() - answered)
    return await reply.content


async def _refuse(send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
    await send_json(send, status, encode({"error": reason}), *headers)


async def _refuse_for_now(send: Send, reason: str) -> None:
    await _refuse(send, 503, reason, (b"retry-after", RETRY_AFTER_SECONDS))
