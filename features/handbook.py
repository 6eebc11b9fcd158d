"""The Fraud Detection Handbook's transactions become its 15 inputs, each as it defines them.

Le Borgne et al., chapter 3, "Baseline feature transformation". Two definitions differ from this
project's own features, and are kept so that its published figures can be held against ours:

- a customer's windows **include the transaction being scored**: ``(t - W, t]``;
- a terminal's windows end a label delay before it: ``(t - 7 d - W, t - 7 d]``, so that every label
  in them was known at ``t``. ``delay_days=0`` takes that care away, ``[t - W, t)``: a leak, for an
  ablation.

The window kernel covers ``[t - W, t)``; a query one microsecond later covers ``(t - W, t]``, since
times are whole seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.windows import (
    DAY,
    SECOND,
    Bounds,
    Floats,
    Grouping,
    Integers,
    count_windows,
    find_bounds,
    group_rows,
    slide_moments,
    sum_windows,
)

WINDOW_DAYS = (1, 7, 30)
LABEL_DELAY_DAYS = 7
FIRST_WEEKDAY = 6
"""2018-04-01 was a Sunday; Monday is 0."""
FIRST_WEEKEND_DAY = 5
LAST_NIGHT_HOUR = 6


@dataclass(frozen=True)
class EntityRows:
    """Transactions grouped by one entity, in time order within each.

    Attributes:
        grouping: Which rows stand where.
        times: Microseconds since the world's start, grouped. Shape ``(rows,)``.
    """

    grouping: Grouping
    times: Integers

    def find_bounds(self, *, days: float, delay_days: float = 0) -> Bounds:
        """Find each row's window ``(t - delay - days, t - delay]``, as ranges of grouped rows."""
        starts = self.grouping.starts
        asked = self.times - round(delay_days * DAY) + 1
        return find_bounds(self.times, starts, asked, starts, length=round(days * DAY))

    def find_past(self, *, days: float) -> Bounds:
        """Find each row's window ``[t - days, t)``: strictly before it."""
        starts = self.grouping.starts
        return find_bounds(self.times, starts, self.times, starts, length=round(days * DAY))

    def group(self, values: pd.Series[float] | pd.Series[bool]) -> Floats:
        """Put one value per transaction into the groups' order."""
        return np.asarray(values, dtype=np.float64)[self.grouping.order]

    def scatter(self, grouped: Floats) -> Floats:
        """Put one value per grouped row back into the transactions' order."""
        values = np.empty_like(grouped)
        values[self.grouping.order] = grouped
        return values


def group_entity(transactions: pd.DataFrame, column: str) -> EntityRows:
    """Group transactions by ``column``, a whole number from 0."""
    entities = transactions[column].to_numpy(dtype=np.int64)
    times = transactions["time_seconds"].to_numpy(dtype=np.int64) * SECOND
    num_entities = int(entities.max(initial=-1)) + 1
    grouping = group_rows(entities, times, num_entities=num_entities)
    return EntityRows(grouping, times[grouping.order])


def build_handbook_features(
    transactions: pd.DataFrame, *, delay_days: int = LABEL_DELAY_DAYS
) -> pd.DataFrame:
    """Compute the handbook's 15 inputs of every transaction.

    Args:
        transactions: As in ``data.handbook.HandbookWorld``.
        delay_days: How many days pass until a label is known; 0 makes terminal risk a leak.

    Returns:
        15 columns of floats, one row per transaction in the same order: ``amount``,
        ``is_weekend``, ``is_night`` (hour <= 6), ``customer_tx_count_*`` and
        ``customer_amount_mean_*`` including the transaction itself, ``terminal_tx_count_*`` and
        ``terminal_risk_*`` (share of frauds; 0 where the window is empty), over 1, 7 and 30 days.

    Source: Fraud Detection Handbook, chapter 3, "Baseline feature transformation".
    """
    weekday = (transactions["day"] + FIRST_WEEKDAY) % 7
    hour = transactions["time_seconds"] // 3600 % 24
    columns = {
        "amount": transactions["amount"].to_numpy(dtype=np.float64),
        "is_weekend": (weekday >= FIRST_WEEKEND_DAY).to_numpy(dtype=np.float64),
        "is_night": (hour <= LAST_NIGHT_HOUR).to_numpy(dtype=np.float64),
    }
    customers = group_entity(transactions, "customer_id")
    amounts = customers.group(transactions["amount"])
    for days in WINDOW_DAYS:
        window = customers.find_bounds(days=days)
        mean = slide_moments(amounts, window).mean
        columns[f"customer_tx_count_{days}d"] = customers.scatter(count_windows(window))
        columns[f"customer_amount_mean_{days}d"] = customers.scatter(mean)
    terminals = group_entity(transactions, "terminal_id")
    is_fraud = terminals.group(transactions["is_fraud"]).astype(np.int64)
    for days in WINDOW_DAYS:
        window = (
            terminals.find_bounds(days=days, delay_days=delay_days)
            if delay_days
            else terminals.find_past(days=days)
        )
        count, frauds = count_windows(window), sum_windows(is_fraud, window)
        columns[f"terminal_tx_count_{days}d"] = terminals.scatter(count)
        columns[f"terminal_risk_{days}d"] = terminals.scatter(frauds / np.maximum(count, 1.0))
    return pd.DataFrame(columns, index=transactions.index)
