"""Scores become decisions and reasons; without history, by what was made for such rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from features.row_requests import RowRequests
from serving.prediction_log import Decision

if TYPE_CHECKING:
    from training.artefact import Artefact
    from training.encoding import Floats

STALE = "online store unavailable: last known history"
REQUEST_ONLY = "online store unavailable: model of the request alone"
RULE = "online store unavailable: rule on the amount"
NUM_REASONS = 5


def decide(
    artefact: Artefact,
    matrix: Floats,
    scores: Floats,
    requests: RowRequests,
    degraded: list[str | None],
) -> tuple[Floats, list[Decision]]:
    """Decide; rows without history get their score from the model made for them, or the rule."""
    amounts = requests.floats[:, 0]
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

    A row that the champion did not score gets no reasons: they would be another score's.
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
