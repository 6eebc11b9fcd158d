"""Scores become decisions and reasons; without history, by what was made for such rows.

A declined payment never tells whether it was a fraud, so a model that learns and is judged on the
others alone sees ever less of what it declines. ``Exploration`` lets a small share of them through,
at random and with a known probability, whose inverse weighs them (``outcome_share`` in the log).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.prediction_log import LOAD_TEST_PREFIX, Decision

if TYPE_CHECKING:
    from training.artefact import Artefact
    from training.encoding import Floats

STALE = "online store unavailable: last known history"
REQUEST_ONLY = "online store unavailable: model of the request alone"
RULE = "online store unavailable: rule on the amount"
NUM_REASONS = 5


@dataclass(frozen=True)
class Exploration:
    """Lets some of what would be declined through, so that its outcome becomes known.

    Chosen by a keyed hash of the transaction's id: a request that is repeated gets the same
    answer, from any worker and any model. Horvitz and Thompson's estimator weighs what was let
    through by the inverse of ``share``.

    Attributes:
        share: Of the rows that would be declined, in [0, 1].
        key: At most 64 bytes. The service derives it from the configuration's seed, so whoever
            knows the configuration can tell which ids are let through, and who may choose ids as
            well can choose such ones.

    Source: Horvitz and Thompson, "A generalization of sampling without replacement from a finite
        universe", 1952.
    """

    share: float
    key: bytes

    def has(self, transaction_id: str) -> bool:
        """Whether a transaction is let through if it would be declined; never a load test's.

        >>> Exploration(1.0, b"key").has("t1"), Exploration(0.0, b"key").has("t1")
        (True, False)
        """
        if transaction_id.startswith(LOAD_TEST_PREFIX):
            return False  # no truth will ever arrive for it
        digest = hashlib.blake2b(transaction_id.encode(), digest_size=8, key=self.key).digest()
        return int.from_bytes(digest) < self.share * 2**64

    def let_through(
        self,
        decisions: list[Decision],
        *,
        transaction_ids: Sequence[str],
        amounts: Floats,
        min_review_amount: float,
    ) -> Floats:
        """Change some declines in place: to ``review``, or ``approve`` if that costs too much.

        Args:
            decisions: One per row.
            transaction_ids: Of the same rows.
            amounts: Account currency. Shape ``(rows,)``.
            min_review_amount: Amounts up to this one are approved instead of reviewed.

        Returns:
            With which probability each row's outcome can be seen: 1 for what would not have been
            declined, ``share`` for what was let through, 0 for what stays declined. Shape
            ``(rows,)``.
        """
        shares = np.ones(len(decisions))
        if "decline" not in decisions:
            return shares
        for row, decision in enumerate(decisions):
            if decision != "decline":
                continue
            if self.share and self.has(transaction_ids[row]):
                shares[row] = self.share
                decisions[row] = "review" if amounts[row] > min_review_amount else "approve"
            else:
                shares[row] = 0.0
        return shares


NO_EXPLORATION = Exploration(0.0, b"")


def decide(
    artefact: Artefact,
    matrix: Floats,
    scores: Floats,
    amounts: Floats,
    degraded: list[str | None],
) -> tuple[Floats, list[Decision]]:
    """Decide; rows without history get their score from the model made for them, or the rule."""
    decisions = artefact.decide(scores, amounts).tolist()
    if REQUEST_ONLY in degraded:
        without = np.array([reason == REQUEST_ONLY for reason in degraded])
        reason, these, say = _predict_without_history(artefact, matrix[without], amounts[without])
        scores[without] = these
        for row, decision in zip(np.flatnonzero(without).tolist(), say, strict=True):
            decisions[row], degraded[row] = decision, reason
    assert np.all((scores >= 0) & (scores <= 1)), "a model gave something that is no probability"
    return scores, decisions


async def explain_rows(
    artefact: Artefact, matrix: Floats, degraded: Sequence[str | None]
) -> list[list[tuple[str, float]]]:
    """Say what moved each score, in a thread: it takes a millisecond a row.

    A row that the model itself did not score gets no reasons: they would be another score's.
    """
    reasons = await asyncio.to_thread(artefact.explain_matrix, matrix, top=NUM_REASONS)
    return [
        [] if reason in (REQUEST_ONLY, RULE) else row
        for row, reason in zip(reasons, degraded, strict=True)
    ]


def _predict_without_history(
    artefact: Artefact, matrix: Floats, amounts: Floats
) -> tuple[str, Floats, list[Decision]]:
    """Score rows whose history is not known.

    Returns:
        What answered, the scores and the decisions.
    """
    if artefact.request_model is not None:
        scores = artefact.predict_request(matrix)
        return REQUEST_ONLY, scores, artefact.decide_request(scores, amounts).tolist()
    if artefact.rule is not None:
        return RULE, artefact.rule.scores(amounts), artefact.rule.decide(amounts).tolist()
    scores = artefact.predict_matrix(matrix)  # an artefact of before: the model with gaps
    return REQUEST_ONLY, scores, artefact.decide(scores, amounts).tolist()
