"""Scores, truths and prices become two thresholds: from where to review, from where to decline.

==========  ==================  =========================
decision    on a fraud          on a legitimate payment
==========  ==================  =========================
approve     its amount          nothing
review      the fee             the fee
decline     nothing             goodwill
==========  ==================  =========================

A review finds the truth. An amount not above the fee is never reviewed, since the review would
cost more than it could save: such a payment is approved below the decline threshold. The search is
exact: it looks at every pair of thresholds that keeps every day within the review capacity.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.encoding import Booleans, Floats, Integers

ABOVE_ANY_SCORE = 1.01
"""A threshold no probability reaches: that decision is never taken."""

Decisions = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Prices:
    """What outcomes cost, account currency; a missed fraud costs its own amount."""

    review_fee: float
    false_decline_goodwill: float


@dataclass(frozen=True)
class Thresholds:
    """From which score a payment is reviewed or declined.

    Attributes:
        review: Smallest reviewed score.
        decline: Smallest declined score, at least ``review``.
        min_review_amount: Amounts up to this one are approved instead of reviewed.
    """

    review: float
    decline: float
    min_review_amount: float

    def decide(self, scores: Floats, amounts: Floats) -> Decisions:
        """Say ``approve``, ``review`` or ``decline`` for each payment.

        >>> at = Thresholds(review=0.2, decline=0.9, min_review_amount=3.0)
        >>> at.decide(np.array([0.1, 0.5, 0.5, 0.9]), np.array([50.0, 50.0, 2.0, 2.0])).tolist()
        ['approve', 'review', 'approve', 'decline']
        """
        is_reviewed = (scores >= self.review) & (amounts > self.min_review_amount)
        return np.where(
            scores >= self.decline, "decline", np.where(is_reviewed, "review", "approve")
        )


@dataclass(frozen=True)
class _Ranked:
    """Rows riskiest first, and what each would cost under each decision.

    ``cuts`` are the numbers of rows a threshold can select: never some of several equal scores.
    Sums have one more entry than rows; entry k is over the k riskiest.
    """

    scores: Floats
    days: Integers
    is_reviewable: Booleans
    cuts: Integers
    approve_sums: Floats
    review_sums: Floats
    decline_sums: Floats


def measure_costs(
    decisions: Decisions, *, is_fraud: Booleans, amounts: Floats, prices: Prices
) -> Floats:
    """Price each payment's decision, account currency.

    >>> fraud, amount = np.array([True, True, False]), np.array([80.0, 80.0, 80.0])
    >>> prices = Prices(review_fee=3.0, false_decline_goodwill=15.0)
    >>> decisions = np.array(["approve", "review", "decline"])
    >>> measure_costs(decisions, is_fraud=fraud, amounts=amount, prices=prices).tolist()
    [80.0, 3.0, 15.0]
    """
    return np.select(
        [decisions == "approve", decisions == "review"],
        [np.where(is_fraud, amounts, 0.0), np.full(amounts.shape, prices.review_fee)],
        np.where(is_fraud, 0.0, prices.false_decline_goodwill),
    )


def choose_thresholds(
    scores: Floats,
    *,
    is_fraud: Booleans,
    amounts: Floats,
    days: Integers,
    prices: Prices,
    daily_review_capacity: int,
) -> Thresholds:
    """Find the cheapest pair of thresholds that the reviewers can keep up with on every day.

    Args:
        scores: Calibrated probabilities of payments the model has not seen. Shape ``(rows,)``.
        is_fraud: The truth.
        amounts: Account currency, >= 0.
        days: A number per calendar day, equal for payments of the same day.
        prices: What outcomes cost.
        daily_review_capacity: Reviews possible per day.

    Returns:
        Thresholds halfway between neighbouring scores; of equally cheap pairs the one that declines
        least, and then the one that reviews least.
    """
    ranked = _rank(scores, is_fraud=is_fraud, amounts=amounts, days=days, prices=prices)
    # cost(i, j) = decline the i riskiest, review up to the j-th, approve the rest
    #            = (decline[i] - review[i]) + (review[j] - approve[j]) + approve[all]
    gains = (ranked.review_sums - ranked.approve_sums)[ranked.cuts]
    last_affordable = _find_last_affordable(ranked, daily_review_capacity)
    best_ends, best_gains = _find_range_minima(gains, last_affordable)
    costs = (ranked.decline_sums - ranked.review_sums)[ranked.cuts] + best_gains
    start = int(np.argmin(costs))
    return Thresholds(
        review=_place_threshold(ranked.scores, int(ranked.cuts[best_ends[start]])),
        decline=_place_threshold(ranked.scores, int(ranked.cuts[start])),
        min_review_amount=prices.review_fee,
    )


def trace_costs(
    scores: Floats,
    *,
    is_fraud: Booleans,
    amounts: Floats,
    days: Integers,
    prices: Prices,
    thresholds: Thresholds,
    num_points: int = 200,
) -> dict[str, Any]:
    """Draw up the cost per day as one threshold moves and the other stays where it is.

    Args:
        scores: Calibrated probabilities. Shape ``(rows,)``.
        is_fraud: The truth.
        amounts: Account currency.
        days: A number per calendar day.
        prices: What outcomes cost.
        thresholds: The chosen pair.
        num_points: Points per curve, evenly spaced in log-odds of the threshold.

    Returns:
        ``thresholds`` and, for each, ``moving_review`` and ``moving_decline`` in currency per day
        (the other threshold gives way where they would cross); ``chosen`` with the pair, its cost
        and its reviews and declines per day; ``approve_all``, the cost of having no model.
    """
    ranked = _rank(scores, is_fraud=is_fraud, amounts=amounts, days=days, prices=prices)
    num_days = max(1, len(np.unique(days)))

    def price(review_from: Floats, decline_from: Floats) -> Floats:
        reviewed = np.searchsorted(-ranked.scores, -review_from, side="right")
        declined = np.searchsorted(-ranked.scores, -decline_from, side="right")
        costs = ranked.decline_sums[declined] - ranked.review_sums[declined]
        costs += ranked.review_sums[reviewed] - ranked.approve_sums[reviewed]
        return np.asarray((costs + ranked.approve_sums[-1]) / num_days)

    grid = 1.0 / (1.0 + np.exp(-np.linspace(-9.0, 9.0, num_points)))
    review, decline = np.array([thresholds.review]), np.array([thresholds.decline])
    decisions = thresholds.decide(scores, amounts)
    return {
        "thresholds": grid.tolist(),
        "moving_review": price(grid, np.maximum(grid, decline)).tolist(),
        "moving_decline": price(np.minimum(grid, review), grid).tolist(),
        "approve_all": float(ranked.approve_sums[-1] / num_days),
        "chosen": {
            **asdict(thresholds),
            "cost_per_day": float(price(review, decline)[0]),
            "reviews_per_day": float((decisions == "review").sum() / num_days),
            "declines_per_day": float((decisions == "decline").sum() / num_days),
        },
    }


def _rank(
    scores: Floats, *, is_fraud: Booleans, amounts: Floats, days: Integers, prices: Prices
) -> _Ranked:
    order = np.argsort(-scores, kind="stable")
    ranked_scores = scores[order]
    is_reviewable = amounts[order] > prices.review_fee
    approve, decline = (
        measure_costs(
            np.full(len(order), name),
            is_fraud=is_fraud[order],
            amounts=amounts[order],
            prices=prices,
        )
        for name in ("approve", "decline")
    )
    review = np.where(is_reviewable, prices.review_fee, approve)
    starts_anew = np.append(ranked_scores[1:] != ranked_scores[:-1], True)
    return _Ranked(
        scores=ranked_scores,
        days=days[order],
        is_reviewable=is_reviewable,
        cuts=np.append(0, np.flatnonzero(starts_anew) + 1),
        approve_sums=np.append(0.0, approve.cumsum()),
        review_sums=np.append(0.0, review.cumsum()),
        decline_sums=np.append(0.0, decline.cumsum()),
    )


def _find_last_affordable(ranked: _Ranked, capacity: int) -> Integers:
    """Say, for reviews that start at each cut, the last cut where no day exceeds ``capacity``."""
    limits = np.full(len(ranked.cuts), len(ranked.scores))
    for day in np.unique(ranked.days):
        rows = np.flatnonzero((ranked.days == day) & ranked.is_reviewable)
        first = np.searchsorted(rows, ranked.cuts)  # reviews of that day before each cut
        one_too_many = first + capacity
        limited = one_too_many < len(rows)
        limits[limited] = np.minimum(limits[limited], rows[one_too_many[limited]])
    return np.searchsorted(ranked.cuts, limits, side="right") - 1


def _find_range_minima(values: Floats, last: Integers) -> tuple[Integers, Floats]:
    """Find where ``values[k:last[k] + 1]`` is smallest, for each k, and how small; first of ties.

    Source: sparse table of minima over ranges of 2**level values, Bender and Farach-Colton, 2000.
    """
    starts = np.arange(len(values))
    levels = np.floor(np.log2(last - starts + 1)).astype(np.int64)
    positions = starts.copy()  # of the minimum of the 2**level values from each start
    found = starts.copy()
    for level in range(int(levels.max()) + 1):
        if level:
            half = min(1 << (level - 1), len(values))
            shifted = np.append(positions[half:], np.full(half, len(values) - 1))
            positions = np.where(values[shifted] < values[positions], shifted, positions)
        here = levels == level
        left = positions[starts[here]]
        right = positions[last[here] - (1 << level) + 1]
        found[here] = np.where(values[right] < values[left], right, left)
    return found, values[found]


def _place_threshold(ranked_scores: Floats, num_selected: int) -> float:
    """Place a threshold that selects exactly the ``num_selected`` riskiest scores."""
    if num_selected == 0:
        return ABOVE_ANY_SCORE
    if num_selected == len(ranked_scores):
        return 0.0
    selected, rejected = ranked_scores[num_selected - 1], ranked_scores[num_selected]
    middle = float((selected + rejected) / 2.0)
    return middle if rejected < middle else float(selected)
