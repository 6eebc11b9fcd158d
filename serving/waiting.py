"""Requests that wait for a batch: gathered into it, and handed their part of its answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from features.row_requests import Transaction as FeatureTransaction
from serving.row_matrix import HasColumns
from serving.score_messages import Answer

logger = logging.getLogger("bentoml.throughline")


class Scorable(FeatureTransaction, HasColumns, Protocol):
    """A transaction of either lane."""

    @property
    def transaction_id(self) -> str: ...  # noqa: D102


class Receiver(Protocol):
    """Takes the answers of a request, or what went wrong; a future is one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, answers: list[Answer], /) -> None:
        """Take the answers."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Take what went wrong."""
        ...


class Waiting(NamedTuple):
    """A request that the next batch answers: when its body was there, and when it was decoded."""

    transactions: Sequence[Scorable]
    receiver: Receiver
    began: float
    received: float


def group_requests(waiting: Sequence[Waiting], *, max_rows: int) -> Iterator[list[Waiting]]:
    """Split what waits into batches of at most ``max_rows`` rows, never a request in two."""
    group: list[Waiting] = []
    rows = 0
    for request in waiting:
        if group and rows + len(request.transactions) > max_rows:
            yield group
            group, rows = [], 0
        group.append(request)
        rows += len(request.transactions)
    yield group


def hand_out(group: Sequence[Waiting], answers: list[Answer]) -> None:
    """Give each request its part; one that cannot take it costs the others nothing."""
    start = 0
    for waiting in group:
        end = start + len(waiting.transactions)
        try:
            if not waiting.receiver.done():  # the client may have gone
                waiting.receiver.set_result(answers[start:end])
        except Exception:
            logger.exception("an answer could not be given")
        start = end


def fail(group: Sequence[Waiting], error: Exception) -> None:
    """Tell each request that it failed; one that cannot be told costs the others nothing."""
    for waiting in group:
        try:
            if not waiting.receiver.done():
                waiting.receiver.set_exception(error)
        except Exception:
            logger.exception("an error could not be told")
