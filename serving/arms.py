"""Who answers whom: the champion, and beside it a challenger for some of the customers.

A batch's rows are split by customer; each part is scored, decided and recorded under the version
that did it. Invariants: a row is answered by one model and says by which; a customer's rows of one
batch are answered by the same one; a challenger that raises costs nobody an answer, for the
champion gives it instead.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from serving.decisions import NO_EXPLORATION, Exploration, decide, explain_rows
from serving.prediction_log import Arm, ScoredBatch
from serving.row_matrix import FeatureRows, ModelInput
from training.rollout import Rollout

if TYPE_CHECKING:
    from training.artefact import Artefact
    from training.encoding import Booleans, Floats, Integers

Margins = Callable[["Floats"], Awaitable["Floats"]]
"""Raw model columns ``(rows, features)`` -> log-odds ``(rows,)``, from a device."""
Reasons = list[list[tuple[str, float]]]
"""For each row the features that moved its score most, and how far."""


class Rows(NamedTuple):
    """Transactions whose features are known.

    Attributes:
        transaction_ids: One per row; so are ``customers``.
        event_times_us: When each happened, microseconds since 1970. Shape ``(rows,)``.
        amounts: Account currency. Shape ``(rows,)``.
        features: Of all of them.
        degraded: Why a row lacks history, or None.
        waited_seconds: From the decoded request until the features were there. Shape ``(rows,)``.
    """

    transaction_ids: Sequence[str]
    customers: Sequence[str]
    event_times_us: Integers
    amounts: Floats
    features: FeatureRows
    degraded: Sequence[str | None]
    waited_seconds: Floats

    def take(self, positions: Integers) -> Rows:
        """Return the rows at ``positions``, in that order."""
        chosen = positions.tolist()
        return Rows(
            [self.transaction_ids[row] for row in chosen],
            [self.customers[row] for row in chosen],
            self.event_times_us[positions],
            self.amounts[positions],
            self.features.take(positions),
            [self.degraded[row] for row in chosen],
            self.waited_seconds[positions],
        )


@dataclass(frozen=True)
class Model:
    """A loaded model, the registry's name for it, and how it reads features."""

    version: str
    artefact: Artefact
    model_input: ModelInput
    margins: Margins | None = None
    """Asks a device for the model's margins; ``None`` where the model gives them itself."""

    async def predict(self, matrix: Floats) -> Floats:
        """Return calibrated probabilities for raw model columns ``(rows, features)``."""
        if self.margins is None:
            return self.artefact.predict_matrix(matrix)
        return self.artefact.spec.calibration.apply(await self.margins(matrix))


class Part(NamedTuple):
    """What one model said to some rows of a batch.

    Attributes:
        positions: Where in the batch; ``None`` if it is all of it.
        batch: For the log.
        reasons: What moved each score, if that was asked.
    """

    positions: Integers | None
    batch: ScoredBatch
    reasons: Reasons | None


@dataclass(frozen=True)
class Arms:
    """The models that answer, replaced as a whole: a batch keeps those it began with.

    Attributes:
        champion: Answers whoever the challenger does not.
        challenger: There is one exactly if there is a rollout.
        rollout: What the challenger does.
        exploration: Lets some of what either would decline through.
    """

    champion: Model
    challenger: Model | None = None
    rollout: Rollout | None = None
    exploration: Exploration = NO_EXPLORATION

    async def score(self, rows: Rows, *, explain: bool) -> tuple[list[Part], Exception | None]:
        """Score a batch, each row with the model that answers its customer.

        Returns:
            One part, or two; and what the challenger raised, if it did: the champion has then
            answered everybody.
        """
        if self.challenger is None:
            return [await self._score_part(self.champion, "champion", rows, explain)], None
        parts: list[Part] = []
        failure = None
        is_challengers = self._find_challengers(rows)
        if is_challengers.any():
            positions = np.flatnonzero(is_challengers)
            try:
                part = await self._score_part(
                    self.challenger, "challenger", rows, explain, positions
                )
                parts.append(part)
            except Exception as error:  # noqa: BLE001 - whatever it is, the champion can answer
                failure = error
        if not parts:
            parts.append(await self._score_part(self.champion, "champion", rows, explain))
        elif not is_challengers.all():
            positions = np.flatnonzero(~is_challengers)
            parts.append(
                await self._score_part(self.champion, "champion", rows, explain, positions)
            )
        return parts, failure

    def _find_challengers(self, rows: Rows) -> Booleans:
        assert self.rollout is not None, "a challenger comes with its rollout"
        return np.array([self.rollout.has(customer) for customer in rows.customers])

    async def _score_part(
        self, model: Model, arm: Arm, rows: Rows, explain: bool, positions: Integers | None = None
    ) -> Part:
        began = time.perf_counter()
        own = rows if positions is None else rows.take(positions)
        matrix = model.model_input.encode(own.features)
        scores = await model.predict(matrix)
        batch = settle(model, arm, own, matrix, scores, self.exploration, began=began)
        reasons = None
        if explain:
            reasons = await explain_rows(model.artefact, matrix, batch.degraded_reasons)
        return Part(positions, batch, reasons)


def settle(
    model: Model,
    arm: Arm,
    rows: Rows,
    matrix: Floats,
    scores: Floats,
    exploration: Exploration,
    *,
    began: float,
) -> ScoredBatch:
    """Decide about scored rows, and lay out what the log keeps.

    Args:
        model: Whose scores they are.
        arm: Its role.
        rows: The rows.
        matrix: The model's raw columns. Shape ``(rows, features)``.
        scores: Calibrated probabilities; those of rows without history are replaced. Shape
            ``(rows,)``.
        exploration: Lets some of what would be declined through.
        began: When the model began on them, by ``time.perf_counter``.
    """
    degraded = list(rows.degraded)
    scores, decisions = decide(model.artefact, matrix, scores, rows.amounts, degraded)
    outcome_shares = exploration.let_through(
        decisions,
        transaction_ids=rows.transaction_ids,
        amounts=rows.amounts,
        min_review_amount=model.artefact.spec.thresholds.min_review_amount,
    )
    return ScoredBatch(
        prediction_time_us=time.time_ns() // 1000,
        model_version=model.version,
        arm=arm,
        transaction_ids=rows.transaction_ids,
        event_times_us=rows.event_times_us,
        amounts=rows.amounts,
        features=rows.features.numbers,
        categories=rows.features.categories,
        scores=scores,
        decisions=decisions,
        degraded_reasons=degraded,
        latency_ms=(rows.waited_seconds + (time.perf_counter() - began)) * 1e3,
        outcome_shares=outcome_shares,
    )
