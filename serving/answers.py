"""What each arm said to its part of a batch becomes the batch's answers, in its order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.arms import Part
from serving.score_messages import Answer, Reason


def make_answers(parts: Sequence[Part]) -> list[Answer]:
    """Make the answers of a batch.

    Args:
        parts: One of all rows, or several that have each row once.
    """
    if len(parts) == 1:
        return _answer_part(parts[0])
    answers: dict[int, Answer] = {}
    for part in parts:
        assert part.positions is not None, "a part of a batch knows which"
        answers.update(zip(part.positions.tolist(), _answer_part(part), strict=True))
    return [answers[row] for row in range(len(answers))]


def _answer_part(part: Part) -> list[Answer]:
    batch = part.batch
    version = batch.model_version
    columns = (batch.transaction_ids, batch.scores.tolist(), batch.decisions)
    answers = [
        Answer(transaction_id, score, decision, version, degraded_reason)
        for transaction_id, score, decision, degraded_reason in zip(
            *columns, batch.degraded_reasons, strict=True
        )
    ]
    if part.reasons is None:
        return answers
    return [
        msgspec.structs.replace(answer, reasons=[Reason(name, value) for name, value in row])
        for answer, row in zip(answers, part.reasons, strict=True)
    ]
