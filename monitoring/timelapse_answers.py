"""One policy's answers: what each served transaction was told, by which model, and what it cost.

A row per served transaction, written a day at a time by the same rules as the service: a canary
answers its share of the customers, a shadow nobody, and of what would be declined a share is let
through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from monitoring.timelapse_models import TrainedModel
from monitoring.timelapse_worlds import World
from serving.decisions import Exploration
from training.encoding import Booleans
from training.metrics import average_precision
from training.operating_point import Prices, measure_costs
from training.rollout import Rollout

EXPLORATION_KEY = b"throughline-timelapse"
LATENCY_MS = 1.0
"""Of every answer: whole days are scored at once, so there is nothing to measure."""


@dataclass(frozen=True)
class Served:
    """Who serves on a day: the champion, and a challenger on its way beside it."""

    version: str
    champion: TrainedModel
    rollout: Rollout | None
    challenger: TrainedModel | None


class Answers:
    """What a world's served transactions were answered under one policy.

    Args:
        world: Whose.
        prices: What outcomes cost.
        explore_share: Of what would be declined is let through.

    Attributes:
        outcome_shares: Of every transaction of the world: 1 before the first served day.
    """

    def __init__(self, world: World, *, prices: Prices, explore_share: float) -> None:
        num_rows = int(world.day_starts[-1] - world.day_starts[0])
        self.world = world
        self.prices = prices
        self.outcome_shares = np.ones(len(world.transactions))
        self._exploration = Exploration(explore_share, EXPLORATION_KEY)
        self._first = int(world.day_starts[0])
        self._versions = np.full(num_rows, "", dtype=object)
        self._arms = np.full(num_rows, "champion", dtype=object)
        self._scores = np.zeros(num_rows)
        self._decisions = np.full(num_rows, "approve", dtype=object)

    def serve_day(self, day: int, served: Served) -> None:
        """Answer a day's transactions."""
        rows, everywhere = self._find_rows(day, day + 1)
        amounts = self.world.amounts[everywhere]
        scores = served.champion.score_day(day)
        decisions = served.champion.artefact.decide(scores, amounts)
        arms = np.full(len(scores), "champion", dtype=object)
        versions = np.full(len(scores), served.version, dtype=object)
        challenger, rollout = served.challenger, served.rollout
        if challenger is not None and rollout is not None and rollout.stage == "canary":
            is_theirs = self._find_customers(rollout, everywhere)
            theirs = challenger.score_day(day)
            arms[is_theirs], versions[is_theirs] = "challenger", rollout.version
            scores = np.where(is_theirs, theirs, scores)
            decisions = np.where(is_theirs, challenger.artefact.decide(theirs, amounts), decisions)
        taken = decisions.tolist()
        self.outcome_shares[everywhere] = self._exploration.let_through(
            taken,
            transaction_ids=self.world.transactions["transaction_id"].iloc[everywhere].tolist(),
            amounts=amounts,
            min_review_amount=self.prices.review_fee,
        )
        self._versions[rows], self._arms[rows] = versions, arms
        self._scores[rows], self._decisions[rows] = scores, taken

    def find_rows_of(self, version: str) -> Booleans:
        """Tell which served rows a version answered."""
        return np.asarray(self._versions == version)

    def _find_customers(self, rollout: Rollout, everywhere: slice) -> Booleans:
        """Tell which rows are of a canary's customers."""
        codes, names = self.world.customers
        here = codes[everywhere]
        chosen = [code for code in np.unique(here) if rollout.has(names[code])]
        return np.isin(here, chosen)

    def measure_average_precision(self, first: int, last: int) -> float | None:
        """Return the oracle's average precision over served days ``[first, last)``.

        The oracle knows every outcome that a label ever gives, declined and immature ones too;
        ``None`` where no fraud happened.
        """
        rows, everywhere = self._find_rows(first, last)
        truth = self.world.is_fraud[everywhere]
        known = ~np.isnan(truth)
        if not (truth[known] == 1).any():
            return None
        return average_precision(truth[known] == 1, self._scores[rows][known])

    def measure_day_cost(self, day: int) -> tuple[float, int]:
        """Return what a day's decisions cost by the oracle, and over how many transactions."""
        rows, everywhere = self._find_rows(day, day + 1)
        truth = self.world.is_fraud[everywhere]
        known = ~np.isnan(truth)
        costs = measure_costs(
            self._decisions[rows][known].astype(str),
            is_fraud=truth[known] == 1,
            amounts=self.world.amounts[everywhere][known],
            prices=self.prices,
        )
        return float(costs.sum()), int(known.sum())

    def select(self, first: int, last: int) -> pd.DataFrame:
        """Return what was answered on served days ``[first, last)`` as the prediction log has it.

        Returns:
            The log's columns beside ``customer_id``, transactions and customers numbered as in
            ``World.numbered``; indexed by the row's place in the world.
        """
        rows, everywhere = self._find_rows(first, last)
        transactions = self.world.numbered.iloc[everywhere]
        return transactions.assign(
            prediction_time=transactions["event_time"],
            model_version=self._versions[rows],
            arm=self._arms[rows],
            score=self._scores[rows],
            decision=self._decisions[rows],
            degraded_reason=None,
            latency_ms=LATENCY_MS,
            outcome_share=self.outcome_shares[everywhere],
        )

    def _find_rows(self, first: int, last: int) -> tuple[slice, slice]:
        """Return where served days ``[first, last)`` are among the served, and in the world."""
        start, end = (int(place) for place in self.world.day_starts[[first, last]])
        return slice(start - self._first, end - self._first), slice(start, end)
