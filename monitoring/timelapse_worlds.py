"""A configuration becomes the time-lapse's worlds, and a world its history with every feature.

Simulated worlds share their past until the day of the change: each of them differs from the
unchanged one in what it is named for, and in nothing else. What happened (the truth) and what was
reported (the feed) differ in one world, whose feed loses a column for some days.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from configs.sections import Change, TimelapseSection, WorldChange
from data.fraud import load_labels, load_transactions, run_data, save_checked
from data.fraud_contract import check_transactions
from features.fraud_selection import FeatureSet
from features.store import read_training_features
from features.store_build import build_feature_store
from training.encoding import Encoding, Floats, Integers, encode_features

DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class Damage:
    """A column of the feed that arrives empty on ``num_days`` days from ``first_day`` on."""

    column: str
    first_day: int
    num_days: int


@dataclass(frozen=True)
class WorldPlan:
    """What one world is.

    Attributes:
        name: As in results: ``unchanged``, ``gradual``, ``abrupt``, ``broken_feed`` or ``yours``.
        title: The same in words.
        changes: What the simulator is told; its days count from the world's first.
        damage: What happens to the feed; its days count from the first served one.
        change_day: Served day from which the world, or its feed, is no longer what it was.
    """

    name: str
    title: str
    changes: tuple[WorldChange, ...] = ()
    damage: Damage | None = None
    change_day: int | None = None


@dataclass(frozen=True)
class World:
    """A history laid out in served days, read-only, with all that no policy can change.

    Attributes:
        plan: What it is.
        transactions: As reported, in time order.
        labels: As they arrive.
        features: Of each transaction, row by row, as of its own time.
        feature_set: Their names.
        first_time: When the first champion begins to serve, midnight UTC.
        num_days: Days served.
    """

    plan: WorldPlan
    transactions: pd.DataFrame
    labels: pd.DataFrame
    features: pd.DataFrame
    feature_set: FeatureSet
    first_time: pd.Timestamp
    num_days: int

    @cached_property
    def day_starts(self) -> Integers:
        """Position of the first row of each served day, and one past the last day's."""
        instants = self.first_time + DAY * np.arange(self.num_days + 1)
        times = self.transactions["event_time"]
        return np.asarray(times.searchsorted(pd.DatetimeIndex(instants).as_unit("us")))

    @cached_property
    def truth(self) -> pd.DataFrame:
        """``is_fraud``, ``label_time`` and ``fraud_pattern`` of each row; missing where unknown."""
        known = self.labels.set_index("transaction_id")
        truth = known.reindex(self.transactions["transaction_id"]).reset_index(drop=True)
        if "fraud_pattern" not in truth:
            truth["fraud_pattern"] = ""
        return truth.assign(fraud_pattern=truth["fraud_pattern"].fillna(""))

    @cached_property
    def is_fraud(self) -> Floats:
        """The truth as 0 or 1; NaN for a transaction that never gets a label."""
        truth = self.truth["is_fraud"].astype("Float64")
        return np.asarray(truth.to_numpy(np.float64, na_value=np.nan))

    @cached_property
    def amounts(self) -> Floats:
        """Account currency."""
        return self.transactions["amount"].to_numpy(np.float64)

    @cached_property
    def customers(self) -> tuple[Integers, list[str]]:
        """Each row's customer as a code, and the customers' names by code."""
        codes, names = pd.factorize(self.transactions["customer_id"])
        return codes.astype(np.int64), [str(name) for name in names]

    @cached_property
    def numbered(self) -> pd.DataFrame:
        """Say who paid what when, each row named by its place and each customer by its code.

        What looks at answers joins them by name a hundred times, and numbers are joined faster.
        """
        return pd.DataFrame(
            {
                "transaction_id": np.arange(len(self.transactions)),
                "customer_id": self.customers[0],
                "event_time": self.transactions["event_time"],
                "amount": self.amounts,
            }
        )

    @cached_property
    def numbered_labels(self) -> pd.DataFrame:
        """The labels by those numbers, one row per transaction; no time where there is none."""
        return pd.DataFrame(
            {
                "transaction_id": self.numbered["transaction_id"],
                "is_fraud": self.is_fraud,
                "label_time": self.truth["label_time"],
            }
        )

    def encode(self, encoding: Encoding) -> Floats:
        """Return the served rows' matrix; models with the same inputs share it."""
        key = (encoding.features, tuple(sorted(encoding.vocabularies.items())))
        if key not in self._matrices:
            first, last = self.day_starts[0], self.day_starts[-1]
            rows = self.features.iloc[first:last]
            self._matrices[key] = encode_features(rows, encoding=encoding)
        return self._matrices[key]

    @cached_property
    def _matrices(self) -> dict[object, Floats]:
        return {}

    def get_time(self, day: int) -> pd.Timestamp:
        """Return the midnight that begins a served day."""
        return self.first_time + day * DAY


def plan_worlds(settings: TimelapseSection) -> tuple[WorldPlan, ...]:
    """Lay out the four simulated worlds.

    Raises:
        ValueError: If the change comes after the last served day.
    """
    day = settings.change_day
    if day + max(settings.gradual_days, settings.broken_days) > settings.served_days:
        raise ValueError(
            f"timelapse.change_day is {day}: with gradual_days {settings.gradual_days} and "
            f"broken_days {settings.broken_days} it must end within served_days "
            f"{settings.served_days}"
        )
    start = settings.before_days + day
    absent = Change(pattern_factors=dict.fromkeys(settings.abrupt.pattern_factors, 0.0))
    return (
        WorldPlan("unchanged", "nothing changes"),
        WorldPlan(
            "gradual",
            f"a drift over {settings.gradual_days} days",
            tuple(
                _scale(settings.gradual, (step + 1) / settings.gradual_days, day=start + step)
                for step in range(settings.gradual_days)
            ),
            change_day=day,
        ),
        WorldPlan(
            "abrupt",
            "a new fraud pattern from one day to the next",
            (
                WorldChange(day=0, **absent.model_dump()),
                WorldChange(day=start, **settings.abrupt.model_dump()),
            ),
            change_day=day,
        ),
        WorldPlan(
            "broken_feed",
            f"the feed's {settings.broken_column} is empty for {settings.broken_days} days",
            damage=Damage(settings.broken_column, day, settings.broken_days),
            change_day=day,
        ),
    )


def _scale(change: Change, share: float, *, day: int) -> WorldChange:
    """Return a share of a change: factors on the way from 1.

    >>> _scale(Change(amount_factor=3.0), 0.5, day=4).amount_factor
    2.0
    """

    def move(factor: float) -> float:
        return 1.0 + (factor - 1.0) * share

    return WorldChange(
        day=day,
        volume_factor=move(change.volume_factor),
        amount_factor=move(change.amount_factor),
        pattern_factors={name: move(factor) for name, factor in change.pattern_factors.items()},
    )


def configure_world(config: FraudConfig, plan: WorldPlan, *, folder: Path) -> FraudConfig:
    """Return the configuration of one world: its folder, days and changes, and smaller looks."""
    settings, name = config.timelapse, config.data.size
    size = config.world_size.model_copy(
        update={"num_days": settings.before_days + settings.served_days}
    )
    data = config.data.model_copy(
        update={"sizes": {**config.data.sizes, name: size}, "changes": plan.changes}
    )
    monitoring = config.monitoring.model_copy(update={"max_rows": settings.max_rows})
    training = config.training.model_copy(update={"num_bootstrap": settings.num_bootstrap})
    serving = config.serving.model_copy(update={"explore_share": settings.explore_share})
    changes = {"data": data, "monitoring": monitoring, "training": training, "serving": serving}
    return config.model_copy(update={**changes, "runs": folder})


def build_world(
    config: FraudConfig,
    plan: WorldPlan,
    *,
    transactions: Path | None = None,
    mapping: Path | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> World:
    """Simulate or read a world, damage its feed, and compute every feature once.

    Args:
        config: Of this world (``configure_world``); everything is written below its ``runs``.
        plan: What the world is.
        transactions: The user's own file instead of a simulated world.
        mapping: Which of its columns is which.
        advance: Called with 1 after each of the three parts.

    Returns:
        The world; its feature store holds states as of the first served day.

    Raises:
        ValueError: If the history is too short, or a column to be damaged is not there.
    """
    origin = run_data(config, world="simulated", transactions=transactions, mapping=mapping)
    history, labels = load_transactions(config.runs), load_labels(config.runs)
    advance(1)
    first_time, num_days = _lay_out_days(config, history)
    if plan.damage is not None:
        history = _damage(history, plan.damage, first_time=first_time)
        checked = check_transactions(
            history, labels, max_quarantine_share=config.data.max_quarantine_share
        )
        save_checked(checked, runs=config.runs, origin={"world": origin["world"]})
        history = checked.transactions
    store = build_feature_store(config.runs, history, labels, as_of=first_time)
    advance(1)
    features = read_training_features(store, history)
    advance(1)
    return World(plan, history, labels, features, store.features, first_time, num_days)


def _lay_out_days(config: FraudConfig, history: pd.DataFrame) -> tuple[pd.Timestamp, int]:
    """Return when serving begins, and for how many whole days the history goes on."""
    settings = config.timelapse
    start = history["event_time"].iloc[0].normalize()
    end = (history["event_time"].iloc[-1] + DAY).normalize()
    first_time = start + settings.before_days * DAY
    num_days = min((end - first_time).days, settings.served_days)
    if num_days < config.data.label_delay_days:
        raise ValueError(
            f"the history has {(end - start).days} days; timelapse.before_days "
            f"({settings.before_days}) leaves too few to serve: lower it or use more data"
        )
    return first_time, num_days


def _damage(history: pd.DataFrame, damage: Damage, *, first_time: pd.Timestamp) -> pd.DataFrame:
    """Empty a column of the feed for some days."""
    if damage.column not in history:
        raise ValueError(f"timelapse.broken_column is '{damage.column}', and there is none")
    start = first_time + damage.first_day * DAY
    end = start + damage.num_days * DAY
    is_hit = history["event_time"].between(start, end, inclusive="left")
    return history.assign(**{damage.column: history[damage.column].mask(is_hit)})


def plan_own_world(transactions: Path) -> WorldPlan:
    """Name the world of a user's own file: nothing is known of its changes."""
    return WorldPlan("yours", f"{transactions.name}, as it is")
