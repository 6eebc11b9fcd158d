"""A served value that history does not give becomes a legitimate cause, or none.

A state in the online store is behind for reasons that are nobody's mistake: the stream needs a
moment, an event came late, labels come once a day. Such a cause is not assumed but tried: the
features are computed again without what the store could not have known, and the cause is believed
only if all features of that state then are what was served.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from features.fraud import INPUTS
from features.fraud_history import to_microseconds
from features.fraud_replay import replay_features
from features.fraud_state import EVENT_STATES, LABEL_STATES, SLACK, STATE_KEYS
from features.fraud_windows import RISK_WINDOW_DAYS
from features.windows import DAY, SECOND, Integers
from monitoring.parity import find_mismatches

LATE_EVENT, STREAM_LAG, LABEL_LAG = "late event", "stream lag", "label lag"
TILED, DEGRADED, TOO_OLD = "tiled history", "degraded prediction", "request too old"
CAUSES = (LATE_EVENT, STREAM_LAG, LABEL_LAG, TILED, DEGRADED, TOO_OLD)
"""What may make a served value legitimately differ; anything else is skew."""

MAX_LABEL_LAG_DAYS = 1
"""Labels are published once a day; states may be without the last so many days' labels."""
_LEAVES = {
    "customer_": "customer_events",
    "merchant_amount": "merchant_events",
    "ip_unique": "ip_events",
    "merchant_fraud_rate": "merchant_labels",
    "merchant_category_risk": "category_labels",
}
"""The state that a window value is read from, by the beginning of its name."""


class Cause(NamedTuple):
    """Why a value differs.

    Attributes:
        name: One of ``CAUSES``.
        seconds: How far the state was behind, for a lag; else NaN.
    """

    name: str
    seconds: float = np.nan


@dataclass(frozen=True)
class Known:
    """What there was to know, by the end.

    Attributes:
        transactions: Accepted ones, in the contract's columns and time order.
        available: When each reached its publisher, microseconds. Shape ``(transactions,)``.
        labels: ``transaction_id, is_fraud, label_time``.
        lagged: What label states would have given without the last labels, once asked, by state,
            entity, day and days left out: many predictions share one.
    """

    transactions: pd.DataFrame
    available: Integers
    labels: pd.DataFrame
    lagged: dict[tuple[str, str, int, int], pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def times(self) -> Integers:
        """When each happened, microseconds."""
        return to_microseconds(self.transactions["event_time"])

    @cached_property
    def positions(self) -> dict[str, dict[str, Integers]]:
        """Where each entity's transactions stand, by key column and id."""
        return {
            key: _list_positions(self.transactions[key])
            for key in dict.fromkeys(STATE_KEYS.values())
            if key in self.transactions
        }

    @cached_property
    def places(self) -> pd.Index:
        """The transactions' ids, to look their places up."""
        ids: pd.Index = pd.Index(self.transactions["transaction_id"])
        return ids

    @cached_property
    def label_times(self) -> Integers:
        """When each label arrived, microseconds."""
        return to_microseconds(self.labels["label_time"])

    @cached_property
    def label_positions(self) -> dict[str, dict[str, Integers]]:
        """Where the labels of each entity's transactions stand, by key column and id."""
        place = self.places.get_indexer(pd.Index(self.labels["transaction_id"]))
        found = {}
        for key in LABEL_STATES.values():
            if key in self.transactions:
                owner = self.transactions[key].to_numpy(object)[place]
                owner[place < 0] = None
                found[key] = _list_positions(pd.Series(owner))
        return found


def _list_positions(entities: pd.Series) -> dict[str, Integers]:
    """List where each entity stands; a missing one stands nowhere."""
    groups = entities.groupby(entities).indices
    return {str(entity): np.asarray(rows) for entity, rows in groups.items()}


def find_state(feature: str) -> str | None:
    """Name the state a feature is read from; ``None`` if the request alone decides it.

    >>> find_state("amount_to_merchant_mean"), find_state("hour_sin")
    ('merchant_events', None)
    """
    for beginning, state in _LEAVES.items():
        if feature.startswith(beginning) and feature not in INPUTS:
            return state
    found = {find_state(name) for name in INPUTS.get(feature, ())} - {None}
    assert len(found) <= 1, f"{feature} is read from several states"
    return found.pop() if found else None


def find_cause(
    state: str, row: pd.DataFrame, served: pd.DataFrame, known: Known, *, max_lag: int
) -> Cause | None:
    """Find why what was served from one state is not what history gives.

    Args:
        state: One of ``features.fraud_state.STATE_KEYS``.
        row: The transaction asked about, one row of ``known``, and ``degraded_reason``.
        served: What was served of this state's features, one row.
        known: What there was to know.
        max_lag: How far the stream may be behind, microseconds.
    """
    is_missing = bool(served.isna().all(axis=None))
    if is_missing and row["degraded_reason"].notna().iloc[0]:
        return Cause(DEGRADED)
    entity = row[STATE_KEYS[state]].iloc[0]
    if entity not in known.positions[STATE_KEYS[state]]:
        return None
    own = known.positions[STATE_KEYS[state]][entity]
    now = int(to_microseconds(row["event_time"])[0])
    if is_missing and known.times[own].max() - SLACK > now:
        return Cause(TOO_OLD)
    if state in LABEL_STATES:
        return _find_label_lag(state, row, served, known, today=now // DAY * DAY)
    found = _find_lag(row, served, known, own[known.times[own] < now], now=now, max_lag=max_lag)
    return found or _find_tiles(state, known.times[own], now)


def _find_lag(
    row: pd.DataFrame,
    served: pd.DataFrame,
    known: Known,
    own: Integers,
    *,
    now: int,
    max_lag: int,
) -> Cause | None:
    """Leave out what became available last, ever more of it, until what was served comes out."""
    available = known.available[own]
    for cut in np.unique(available[available > now - max_lag])[::-1].tolist():
        left = known.transactions.iloc[own[available < cut]]
        if _gives(pd.concat([left, row[left.columns]]), known.labels.head(0), row, served):
            is_late = cut > now
            return Cause(LATE_EVENT) if is_late else Cause(STREAM_LAG, (now - cut) / SECOND)
    return None


def _find_label_lag(
    state: str, row: pd.DataFrame, served: pd.DataFrame, known: Known, *, today: int
) -> Cause | None:
    """Leave out the labels of the last day, then of the last two, and so on."""
    for days in range(1, MAX_LABEL_LAG_DAYS + 1):
        case = state, str(row[STATE_KEYS[state]].iloc[0]), today, days
        if case not in known.lagged:
            known.lagged[case] = _replay_labels(state, row, known, today=today, days=days)
        if not find_mismatches(served, known.lagged[case]).any():
            return Cause(LABEL_LAG, days * DAY / SECOND)
    return None


def _replay_labels(
    state: str, row: pd.DataFrame, known: Known, *, today: int, days: int
) -> pd.DataFrame:
    """Compute the features of a state that lacks the last days' labels."""
    key = STATE_KEYS[state]
    own = known.label_positions[key].get(row[key].iloc[0], np.empty(0, np.int64))
    arrived = known.label_times[own]
    labels = known.labels.iloc[
        own[(arrived < today - days * DAY) & (arrived >= today - RISK_WINDOW_DAYS * DAY)]
    ]
    places = known.places.get_indexer(pd.Index(labels["transaction_id"]))
    transactions = known.transactions.iloc[np.unique(places)]
    rows = pd.concat([transactions, row[transactions.columns]])
    return replay_features(rows.drop_duplicates("transaction_id"), labels, row)


def _find_tiles(state: str, times: Integers, now: int) -> Cause | None:
    """Say whether the entity had more events than a state keeps one by one."""
    kind = EVENT_STATES[state]
    reach = kind.retention + SLACK
    held = np.arange(1, times.size + 1) - np.searchsorted(times, times - reach)
    lately = (times > now - reach) & (times < now)
    return Cause(TILED) if (held[lately] > kind.max_events).any() else None


def _gives(
    transactions: pd.DataFrame, labels: pd.DataFrame, row: pd.DataFrame, served: pd.DataFrame
) -> bool:
    """Say whether a truncated history gives exactly what was served."""
    return not find_mismatches(served, replay_features(transactions, labels, row)).any()
