"""``POST /v1/score`` straight from the HTTP parser: no ASGI scope, task or message in between.

uvicorn's protocol makes a task, a scope and an event for each request, which costs more than
scoring it. This subclass answers the plainest requests itself (one transaction, announced length,
kept-alive connection) as soon as their body is there. Everything else, the lane's refusals of odd
requests included, goes the usual way through ``serving.fast_lane`` and BentoML: same answers.

The response is one write to the socket; a request that comes pipelined behind it waits its turn, as
uvicorn has it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn.protocols.http.auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.score_messages import Answer, RequestError, encode, read_transaction
from serving.scorer import NoModelError, OverloadedError
from serving.whole_response import render_head

if TYPE_CHECKING:
    from serving.fast_lane import Lane

logger = logging.getLogger("bentoml.throughline")

PATH = b"/v1/score"
ROUTE = "score"
MAX_BODY_BYTES = 65_536
"""Larger bodies go the usual way, where reading can be paused."""
_JSON = (b"content-type", b"application/json")


class _Ignored:
    """Stands where uvicorn would wake up a task; there is none."""

    def set(self) -> None:
        """Do nothing."""


_NOBODY = _Ignored()


class LaneCycle:
    """A request under way and its response; stands where uvicorn's ``RequestResponseCycle`` would.

    Args:
        protocol: The connection.
        lane: The service.
    """

    __slots__ = (
        *("body", "disconnected", "keep_alive", "lane", "message_event", "more_body"),
        *("protocol", "received", "response_complete", "response_started"),
    )

    def __init__(self, protocol: LaneProtocol, lane: Lane) -> None:
        self.protocol = protocol
        self.lane = lane
        self.body = b""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_started = self.response_complete = False
        self.message_event = _NOBODY
        self.received = 0.0

    def begin(self) -> None:
        """Decode the body and have it scored; the scorer then calls one of the methods below."""
        self.more_body = False
        self.received = time.perf_counter()
        scorer = self.lane.scorer
        try:
            scorer.check_accepts(1)  # a body that is refused anyway is not worth decoding
            transaction = read_transaction(self.body, extra=self.lane.extra)
            scorer.submit_to((transaction,), self, began=self.received)
        except Exception as error:  # noqa: BLE001 - every error becomes a response
            self.set_exception(error)

    def done(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.response_complete or self.disconnected or self.protocol.transport.is_closing()

    def set_result(self, answers: Sequence[Answer]) -> None:
        """Answer."""
        (answer,) = answers
        metrics = self.lane.metrics
        metrics.count_request(ROUTE, "ok" if answer.degraded_reason is None else "degraded")
        self._respond(200, encode(answer))
        metrics.observe_latencies((time.perf_counter() - self.received,))

    def set_exception(self, error: BaseException) -> None:
        """Refuse, as ``serving.fast_lane`` does."""
        match error:
            case RequestError():
                outcome, status, reason = "invalid", 400, str(error)
            case OverloadedError():
                outcome, status, reason = "shed", 503, f"overloaded: {error}"
            case NoModelError():
                outcome, status, reason = "no_model", 503, str(error)
            case _:
                logger.error("a request failed", exc_info=error)
                reason = "the service failed; its log says why"
                outcome, status = "failed", 503
        self.lane.metrics.count_request(ROUTE, outcome)
        headers = ((b"retry-after", b"1"),) if status == 503 else ()
        self._respond(status, encode({"error": reason}), *headers)

    def _respond(self, status: int, content: bytes, *headers: tuple[bytes, bytes]) -> None:
        if self.done():
            return
        protocol = self.protocol
        if not self.keep_alive:
            headers = (*headers, (b"connection", b"close"))
        head = render_head(status, content, (*protocol.server_state.default_headers, *headers))
        self.response_started = self.response_complete = True
        protocol.transport.write(head + content)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a shortcut for ``PATH``."""

    find_lane: Callable[[], Lane | None]
    lane: Lane | None = None

    def on_headers_complete(self) -> None:
        """Take the request if it is of the plainest kind."""
        if self.url == PATH and self._is_plain():
            lane = self.lane or self._find_lane()
            if lane is not None:
                self.cycle = LaneCycle(self, lane)
                return
        super().on_headers_complete()

    def shutdown(self) -> None:
        """Close a connection whose request is not all there: its client may never send the rest."""
        cycle: Any = self.cycle
        if type(cycle) is LaneCycle and cycle.more_body:
            self.transport.close()
        else:
            super().shutdown()

    @classmethod
    def _find_lane(cls) -> Lane | None:
        """Look the service up until it is there, then remember it for all connections."""
        cls.lane = cls.find_lane()
        return cls.lane

    def on_message_complete(self) -> None:
        """Begin to answer once the body is whole."""
        cycle: Any = self.cycle
        if type(cycle) is LaneCycle:
            if cycle.more_body:
                cycle.begin()
        else:
            super().on_message_complete()

    def _is_plain(self) -> bool:
        """Whether there is nothing to the request but a small body of JSON."""
        parser, cycle, headers = self.parser, self.cycle, self.headers
        return (
            _JSON in headers
            and (cycle is None or cycle.response_complete)
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused  # a client that does not read must wait
            and 0 < _find_length(headers) <= MAX_BODY_BYTES
        )


def _find_length(headers: Sequence[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length":
            return int(value)  # the parser has refused what is no number
    return 0


def install(find_lane: Callable[[], Lane | None]) -> None:
    """Have the uvicorn server that this process is about to make use the shortcut.

    BentoML makes the server and leaves the choice of protocol to uvicorn, which looks it up by
    this name.

    Args:
        find_lane: Gives the service once it was made; ``None`` before.
    """
    protocol = type("LaneProtocol", (LaneProtocol,), {"find_lane": staticmethod(find_lane)})
    uvicorn.protocols.http.auto.AutoHTTPProtocol = protocol
