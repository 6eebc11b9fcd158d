"""The handbook's weeks: which transactions a model learns from, and which it is judged on.

Train for a week, wait a week for labels, test for a week. A card known to be compromised by the
morning of a test day is no longer a question, so its transactions leave the test: the cards of the
training week's frauds, and of the frauds up to seven days and a night before. Validation folds
come before the test folds: their labels are known by the day the first test week begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from data.handbook import START_TIME
from features.windows import Floats, Integers
from training.metrics import card_precision, rank_cards

WEEK_DAYS = 7
NUM_FOLDS = 4
CARDS_CHECKED = 100
TRAIN_START = "2018-07-25"
METRICS = ("roc_auc", "average_precision", "card_precision_at_100")


@dataclass(frozen=True)
class Split:
    """Positions of transactions to learn from and to be judged on, both ascending."""

    train: Integers
    test: Integers


def find_day(date: str) -> int:
    """Number a date's day in the handbook's world, whose first is 2018-04-01.

    >>> find_day("2018-07-25")
    115
    """
    return (pd.Timestamp(date, tz="UTC") - START_TIME).days


def split_weeks(
    transactions: pd.DataFrame, *, first_day: int, drop_known_cards: bool = True
) -> Split:
    """Split off a training week and, a week of label delay later, a test week.

    Args:
        transactions: As in ``data.handbook.HandbookWorld``, ordered by day.
        first_day: First day of the training week.
        drop_known_cards: Leave cards known to be compromised out of the test, day by day.

    Returns:
        Row positions.

    Source: Fraud Detection Handbook, chapter 3, ``get_train_test_set``.
    """
    day = transactions["day"].to_numpy()
    customer, is_fraud = transactions["customer_id"].to_numpy(), transactions["is_fraud"].to_numpy()

    def find_rows(first: int, last: int) -> Integers:
        return np.arange(*np.searchsorted(day, [first, last]))

    train = find_rows(first_day, first_day + WEEK_DAYS)
    first_test = first_day + 2 * WEEK_DAYS
    kept = []
    for today in range(first_test, first_test + WEEK_DAYS):
        rows = find_rows(today, today + 1)
        if drop_known_cards:
            matured = find_rows(first_day, max(first_day + WEEK_DAYS, today - WEEK_DAYS))
            rows = rows[~np.isin(customer[rows], customer[matured[is_fraud[matured]]])]
        kept.append(rows)
    return Split(train, np.concatenate(kept))


def split_folds(
    transactions: pd.DataFrame, *, last_first_day: int, num_folds: int = NUM_FOLDS
) -> list[Split]:
    """Split prequentially: a fold a week, counted back from the latest training week."""
    firsts = [last_first_day - WEEK_DAYS * fold for fold in range(num_folds)]
    return [split_weeks(transactions, first_day=first) for first in firsts]


def assess(transactions: pd.DataFrame, rows: Integers, scores: Floats) -> dict[str, float]:
    """Measure scores of some transactions with the handbook's three metrics.

    Args:
        transactions: As in ``data.handbook.HandbookWorld``.
        rows: Positions of the transactions scored. Shape ``(rows,)``.
        scores: Higher is riskier. Shape ``(rows,)``.

    Returns:
        ``roc_auc``, ``average_precision`` and ``card_precision_at_100``, the share of frauds' cards
        among the 100 riskiest of a day, those detected on an earlier day left out, mean over days.

    Source: Fraud Detection Handbook, chapter 4, ``performance_assessment``.
    """
    judged = transactions.iloc[rows]
    is_fraud = judged["is_fraud"].to_numpy(dtype=bool)
    customers = judged["customer_id"].to_numpy(dtype=np.int64)
    event_time = START_TIME + pd.to_timedelta(judged["time_seconds"], unit="s")
    cards = rank_cards(is_fraud, scores, customer_codes=customers, event_time=event_time)
    once = np.ones((1, int(customers.max(initial=0)) + 1))
    precision = card_precision(cards, cards_checked=CARDS_CHECKED, multiplicity=once)
    return {
        "roc_auc": float(roc_auc_score(is_fraud, scores)),
        "average_precision": float(average_precision_score(is_fraud, scores)),
        "card_precision_at_100": float(precision[0]),
    }
