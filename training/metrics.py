"""Truths and scores become the numbers a fraud team is judged by.

Rank metrics depend on the order of scores only and treat equal scores as one threshold, so an
undecided model earns what chance gives. All take ``is_fraud`` first, one flag per transaction, and
``scores`` of the same shape, higher is riskier. ``training.bootstrap`` puts intervals on them, with
the same formulas applied to resampled counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.encoding import Booleans, Floats, Integers

MAX_FALSE_POSITIVE_RATE = 0.001
NUM_CALIBRATION_BINS = 15
NUM_CARDS_CHECKED = 100


@dataclass(frozen=True)
class RankCounts:
    """How many frauds and legitimates fall between neighbouring thresholds, riskiest first.

    Legitimates between two frauds are one segment: no threshold among them is ever the best one.
    Counts may be resampled: a column each. Shapes ``(segments, resamples)``.
    """

    frauds: npt.NDArray[np.float64]
    legitimate: npt.NDArray[np.float64]


def find_segments(is_fraud: Booleans, scores: Floats) -> Integers:
    """Number the segments of ``RankCounts``, riskiest first, and say which one each row is in.

    >>> find_segments(np.array([True, False, False, True]), np.array([0.9, 0.5, 0.4, 0.4])).tolist()
    [0, 1, 2, 2]
    """
    values, positions = np.unique(-scores, return_inverse=True)
    holds_fraud = np.zeros(len(values), dtype=bool)
    holds_fraud[positions[is_fraud]] = True
    starts = holds_fraud | np.append(True, holds_fraud[:-1])
    return np.asarray((np.cumsum(starts) - 1)[positions], dtype=np.int64)


def count_ranks(is_fraud: Booleans, scores: Floats) -> RankCounts:
    """Count each row once: one column."""
    segments = find_segments(is_fraud, scores)
    num_segments = int(segments.max(initial=-1)) + 1
    return RankCounts(
        np.bincount(segments[is_fraud], minlength=num_segments).astype(float)[:, None],
        np.bincount(segments[~is_fraud], minlength=num_segments).astype(float)[:, None],
    )


def summarise_ranks(counts: RankCounts) -> dict[str, Floats]:
    """Compute the rank metrics of every column of counts.

    Returns:
        ``average_precision``, ``roc_auc`` and ``recall_at_low_fpr``, each of shape
        ``(resamples,)``; NaN for a column without frauds, and for the last two without
        legitimates.
    """
    caught, alarms = counts.frauds.cumsum(axis=0), counts.legitimate.cumsum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(caught / (caught + alarms))
        recall = caught / counts.frauds.sum(axis=0)
        false_positive_rate = alarms / counts.legitimate.sum(axis=0)
        ranked_above = caught - counts.frauds / 2.0  # a tie counts one half
        pairs = counts.frauds.sum(axis=0) * counts.legitimate.sum(axis=0)
        is_affordable = false_positive_rate <= MAX_FALSE_POSITIVE_RATE
        return {
            "average_precision": (np.diff(recall, axis=0, prepend=0.0) * precision).sum(axis=0),
            "roc_auc": (ranked_above * counts.legitimate).sum(axis=0) / pairs,
            "recall_at_low_fpr": np.where(
                pairs > 0, np.where(is_affordable, recall, 0.0).max(axis=0, initial=0.0), np.nan
            ),
        }


def average_precision(is_fraud: Booleans, scores: Floats) -> float:
    """Average the precision at each fraud's threshold, in [0, 1]; NaN without frauds.

    A constant score gives the share of frauds, a perfect order gives 1.

    Source: sum over thresholds of (R_k - R_(k-1)) P_k, without interpolation (scikit-learn).

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7])) == (1 + 2/3) / 2
    True
    """
    return float(summarise_ranks(count_ranks(is_fraud, scores))["average_precision"][0])


def roc_auc(is_fraud: Booleans, scores: Floats) -> float:
    """Estimate how often a fraud scores above a legitimate transaction; a tie counts one half.

    Source: Mann-Whitney U divided by the number of pairs.

    >>> roc_auc(np.array([True, False, False]), np.array([0.5, 0.5, 0.1]))
    0.75
    """
    return float(summarise_ranks(count_ranks(is_fraud, scores))["roc_auc"][0])


def recall_at_low_fpr(is_fraud: Booleans, scores: Floats) -> float:
    """Find the share of frauds caught while at most 1 in 1,000 legitimate ones is stopped.

    >>> recall_at_low_fpr(np.array([True, True, False]), np.array([0.9, 0.2, 0.5]))
    0.5
    """
    return float(summarise_ranks(count_ranks(is_fraud, scores))["recall_at_low_fpr"][0])


def brier_score(is_fraud: Booleans, scores: Floats, *, weights: Floats | None = None) -> float:
    """Average the squared distance of probability and truth; 0 is perfect.

    ``weights`` say for how many transactions each row stands; without them, for itself.

    >>> brier_score(np.array([True, False]), np.array([1.0, 0.5]))
    0.125
    """
    return float(np.average((scores - is_fraud) ** 2, weights=weights))


def find_calibration_bins(scores: Floats) -> Integers:
    """Put scores into at most ``NUM_CALIBRATION_BINS`` bins that hold about as many rows each.

    Equal-width bins would put nearly every transaction of a rare event into the first. Equal
    scores share a bin, so there may be fewer bins; they are numbered upwards from 0 without gaps.
    """
    shares = np.linspace(0.0, 1.0, NUM_CALIBRATION_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(scores, shares)) if scores.size else np.empty(0)
    return np.unique(np.searchsorted(edges, scores, side="left"), return_inverse=True)[1]


def expected_calibration_error(is_fraud: Booleans, scores: Floats) -> float:
    """Average, over bins of equal size, the gap between mean probability and share of frauds.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015,
        with equal-mass bins (see ``find_calibration_bins``).

    >>> expected_calibration_error(np.array([True, False]), np.array([0.5, 0.5]))
    0.0
    """
    bins = find_calibration_bins(scores)
    gaps = np.bincount(bins, weights=scores - is_fraud)
    return float(np.abs(gaps).sum() / len(scores))


@dataclass(frozen=True)
class CardDays:
    """The riskiest score and the truth of each card on each day it was used.

    Rows are sorted by day, then riskiest first. ``cards`` are codes into the customers, ``weights``
    how many card-days each stands for.
    """

    days: Integers
    cards: Integers
    has_fraud: Booleans
    weights: Floats


def rank_cards(
    is_fraud: Booleans,
    scores: Floats,
    *,
    customer_codes: Integers,
    event_time: pd.Series[Any],
    weights: Floats | None = None,
) -> CardDays:
    """Rank each day's cards by their riskiest transaction of that UTC day.

    ``weights`` are the same for all of a card's rows of a day; without them each stands for itself.
    """
    rows = pd.DataFrame(
        {
            "day": event_time.dt.floor("D").astype("int64").to_numpy(),
            "card": customer_codes,
            "score": scores,
            "is_fraud": is_fraud,
            "weight": np.ones(len(scores)) if weights is None else weights,
        }
    )
    card_days = rows.groupby(["day", "card"], as_index=False).max()
    ranked = card_days.sort_values(
        ["day", "score", "card"], ascending=[True, False, True], kind="stable"
    )
    days = np.unique(ranked["day"].to_numpy(), return_inverse=True)[1]
    return CardDays(
        days,
        ranked["card"].to_numpy(),
        ranked["is_fraud"].to_numpy(),
        ranked["weight"].to_numpy(),
    )


def card_precision(card_days: CardDays, *, cards_checked: int, multiplicity: Floats) -> Floats:
    """Measure how many of the cards a team checks per day turn out to be compromised.

    Each day the ``cards_checked`` riskiest cards are looked at; a card found compromised is blocked
    and does not come back on later days. On a day with fewer cards the rest of the day is wasted.

    Args:
        card_days: From ``rank_cards``.
        cards_checked: Cards a team can check per day.
        multiplicity: How often each customer counts. Shape ``(resamples, customers)``.

    Returns:
        Compromised cards found over cards checked, mean over days. Shape ``(resamples,)``.

    Source: card precision@k, Fraud Detection Handbook, chapter 4, "Card Precision top-k".
    """
    is_blocked = np.zeros(multiplicity.shape, dtype=bool)
    daily = []
    for day in np.unique(card_days.days):
        today = card_days.days == day
        cards, has_fraud = card_days.cards[today], card_days.has_fraud[today]
        counts = np.where(is_blocked[:, cards], 0.0, multiplicity[:, cards])
        counts *= card_days.weights[today]
        ranked_before = counts.cumsum(axis=1) - counts
        checked = np.clip(cards_checked - ranked_before, 0.0, counts)
        daily.append((checked * has_fraud).sum(axis=1) / cards_checked)
        is_blocked[:, cards[has_fraud]] |= checked[:, has_fraud] > 0
    return np.mean(daily, axis=0) if daily else np.full(len(multiplicity), np.nan)
