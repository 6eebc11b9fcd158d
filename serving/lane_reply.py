"""A batch's answers become a request's body the moment they are there, and its trace if it has one.

What a task waits for is the encoded body, not the answers: so encoding is part of the batch, whose
stages are then known, and costs no turn of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from serving.score_messages import Answer, AnswerBatch, encode

if TYPE_CHECKING:
    from serving.scorer import BatchTimes, Scorer
    from serving.tracing import RequestTrace

STAGES = ("store", "features", "model", "record")


class Reply:
    """Takes the answers of a request; see ``serving.scorer.Receiver``.

    Args:
        scorer: Whose batch will answer.
        is_batch: Whether the body is a list of answers, or one.
        received: When the request's body was there, by ``time.perf_counter``.

    Attributes:
        content: What a task waits for.
        answers: Those encoded; empty until then.
    """

    def __init__(self, scorer: Scorer, *, is_batch: bool, received: float) -> None:
        self.content: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.answers: Sequence[Answer] = ()
        self.received = received
        self.submitted = received
        self._scorer = scorer
        self._is_batch = is_batch
        self._times: BatchTimes | None = None
        self._answered = received

    @property
    def is_degraded(self) -> bool:
        """Whether an answer lacks a part of its history."""
        return any(answer.degraded_reason is not None for answer in self.answers)

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return self.content.done()

    def set_result(self, answers: list[Answer]) -> None:
        """Encode the answers."""
        self.answers, self._times = answers, self._scorer.times
        self._answered = time.perf_counter()
        content = encode(AnswerBatch(answers) if self._is_batch else answers[0])
        self.content.set_result(content)

    def set_exception(self, error: Exception) -> None:
        """Pass on what went wrong."""
        self.content.set_exception(error)

    def finish(self, trace: RequestTrace, *, route: str, outcome: str) -> None:
        """Say how the request went; its stages are those of the batch that answered it."""
        stages = {}
        if self.answers and self._times is not None:
            stages["decode"] = (self.received, self.submitted)
            times = zip(STAGES, self._times, self._times[1:], strict=False)
            stages |= {name: (start, end) for name, start, end in times}
            stages["encode"] = (self._answered, time.perf_counter())
        first = self.answers[0] if self.answers else None
        trace.finish(
            {name: (_to_ns(start), _to_ns(end)) for name, (start, end) in stages.items()},
            {
                "route": f"/v1/{route}",
                "outcome": outcome,
                "rows": len(self.answers),
                "model_version": first.model_version if first else None,
                "degraded_reason": first.degraded_reason if first else None,
                "decision": None if first is None or self._is_batch else first.decision,
            },
        )


def _to_ns(seconds: float) -> int:
    return round(seconds * 1e9)
