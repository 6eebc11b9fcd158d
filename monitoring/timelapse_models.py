"""What is known at an instant becomes a model, and a model the scores of any served day, once each.

Policies that know the same outcomes on the same day train the same model: it is trained once, and
scores each day once. Outcomes of declined payments are unknown; one that was let through stands for
all that were not, so it is there as many times as it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from data.time_split import TimeSplit
from monitoring.timelapse_worlds import World
from training.artefact import Artefact
from training.encoding import Floats
from training.fraud_material import plan_split
from training.seen_outcomes import repeat_by_weight

Refit = Callable[..., Any]
"""``training.fraud_refit.refit``: injected, since nothing here imports a problem's training."""


@dataclass
class TrainedModel:
    """A model, when it was trained, and what it scores; shared by policies, its version is not.

    Attributes:
        artefact: The model.
        reference: What its predictions are held against.
        importance: Each feature's share.
        split: What it was made from.
        key: Two models with the same key are the same.
    """

    artefact: Artefact
    reference: pd.DataFrame
    importance: Mapping[str, float]
    split: TimeSplit
    key: str
    world: World = field(repr=False)
    _days: dict[int, Floats] = field(default_factory=dict, repr=False)

    def score_day(self, day: int) -> Floats:
        """Return the scores of a served day's transactions, in time order."""
        if day not in self._days:
            world = self.world
            first, last = world.day_starts[day : day + 2] - world.day_starts[0]
            matrix = world.encode(self.artefact.spec.encoding)[first:last]
            self._days[day] = self.artefact.predict_matrix(matrix)
        return self._days[day]

    def score_days(self, first: int, last: int) -> Floats:
        """Return the scores of served days ``[first, last)``, one after another."""
        return np.concatenate([np.empty(0), *(self.score_day(day) for day in range(first, last))])


class Trainer:
    """Train a world's models, none of them twice.

    Args:
        config: Of the world.
        world: Whose rows.
        refit: Fits one.
        parameters: LightGBM's, the same for every model, so that only the data differ.
    """

    def __init__(
        self, config: FraudConfig, world: World, *, refit: Refit, parameters: Mapping[str, Any]
    ) -> None:
        self.num_trained = 0
        self._config = config
        self._world = world
        self._refit = refit
        self._parameters = parameters
        self._models: dict[str, TrainedModel] = {}

    def train(self, now: pd.Timestamp, *, outcome_shares: Floats) -> TrainedModel:
        """Train on what is known at ``now``.

        Args:
            now: As of when, UTC.
            outcome_shares: With which probability each row's outcome is seen; 0 for never. One per
                transaction of the world.

        Raises:
            ValueError: If the history is too short, or a slice lacks frauds.
        """
        world, times = self._world, self._world.transactions["event_time"]
        split = plan_split(self._config, now=now, first_event_time=times.iloc[0])
        first, last = times.searchsorted([split.train.start_time, split.test.end_time])
        shares = outcome_shares[first:last]
        key = hashlib.sha256(now.isoformat().encode() + shares.tobytes()).hexdigest()
        if key not in self._models:
            rows = first + repeat_by_weight(shares)
            known = mask_outcomes(world.truth.iloc[rows], outcome_shares[rows], now=now)
            transactions = world.transactions.iloc[rows]
            fitted = self._refit(
                self._config,
                pd.concat([transactions, known], axis=1),
                world.features.iloc[rows],
                chosen=world.feature_set,
                split=split,
                parameters=self._parameters,
                max_reference_rows=2 * self._config.timelapse.max_rows,
            )
            self._models[key] = TrainedModel(
                fitted.artefact, fitted.reference, fitted.importance, split, key, world
            )
            self.num_trained += 1
        return self._models[key]


def mask_outcomes(
    truth: pd.DataFrame, outcome_shares: Floats, *, now: pd.Timestamp
) -> pd.DataFrame:
    """Take away what is not known at ``now``, and what never will be.

    Args:
        truth: ``is_fraud``, ``label_time`` and ``fraud_pattern``.
        outcome_shares: One per row.
        now: As of when, UTC.
    """
    is_unknown = ~(truth["label_time"] <= now).to_numpy() | (outcome_shares == 0)
    return truth.assign(
        is_fraud=truth["is_fraud"].mask(is_unknown),
        label_time=truth["label_time"].mask(is_unknown),
        fraud_pattern=truth["fraud_pattern"].mask(is_unknown, ""),
    )
