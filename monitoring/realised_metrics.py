"""Answers and their outcomes become the numbers a model is judged by, on resamples of customers.

A declined payment has no outcome. Of what would be declined a known share is let through instead,
and each of those stands for ``weight`` of its kind: the inverse of the chance with which its
outcome could be seen. Weights make every number one of all that was answered, at the price of a
wider interval: the effective sample size says how much.

Source: Horvitz and Thompson, 1952 (inverse probability weights); Kish, "Survey Sampling", 1965,
section 11.7 (effective sample size).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from training.bootstrap import (
    CustomerBootstrap,
    resample_card_precision,
    resample_mean,
    resample_probabilities,
    resample_ranks,
    resample_sum,
)
from training.encoding import Booleans, Floats
from training.operating_point import Prices, measure_costs

METRICS = (
    "average_precision",
    "card_precision_at_100",
    "cost_per_1000",
    "brier_score",
    "expected_calibration_error",
    "fraud_ratio",
    "roc_auc",
)
"""``fraud_ratio``: frauds that came about over frauds that the scores had announced."""


def resample_metrics(
    known: pd.DataFrame, *, prices: Prices, bootstrap: CustomerBootstrap
) -> dict[str, Floats]:
    """Compute every metric of ``METRICS`` on every resample.

    Args:
        known: Answers whose outcome is known or can never be, with ``customer_id``,
            ``event_time``, ``amount``, ``score``, ``decision``, ``weight`` (0 where declined) and
            ``is_fraud`` (missing there).
        prices: What outcomes cost.
        bootstrap: Drawn over the customers of ``known``.

    Returns:
        Each of shape ``(1 + resamples,)``; the first is the plain number.
    """
    is_seen = known["is_fraud"].notna().to_numpy()
    seen, draws = known[is_seen], bootstrap.take(is_seen)
    is_fraud = seen["is_fraud"].to_numpy(dtype=bool)
    scores, weights = (seen[name].to_numpy(dtype=np.float64) for name in ("score", "weight"))
    found = {
        **resample_ranks(is_fraud, scores, bootstrap=draws, weights=weights),
        **resample_probabilities(is_fraud, scores, bootstrap=draws, weights=weights),
        "card_precision_at_100": _resample_card_precision(known, bootstrap),
        "cost_per_1000": 1000.0 * resample_mean(price_answers(known, prices), bootstrap=bootstrap),
        "fraud_ratio": resample_sum(weights * is_fraud, bootstrap=draws)
        / resample_sum(weights * scores, bootstrap=draws),
    }
    return {name: found[name] for name in METRICS}


def price_answers(known: pd.DataFrame, prices: Prices) -> Floats:
    """Price each answer as it was given, so that the sum is unbiased whatever was declined.

    What a declined payment cost is unknown: goodwill, unless it was a fraud. It is first priced by
    the champion's own probability; the few of its kind that were let through then correct the sum
    by how much they turned out otherwise.

    Args:
        known: As for ``resample_metrics``.
        prices: What outcomes cost.

    Returns:
        Account currency, one per row. A row alone means little: corrections are large and rare.

    Source: difference estimator, Sarndal, Swensson and Wretman, "Model Assisted Survey Sampling",
        1992, section 6.3.
    """
    is_fraud = known["is_fraud"].eq(True).to_numpy(dtype=bool)
    is_seen = known["is_fraud"].notna().to_numpy()
    scores, weights = (known[name].to_numpy(dtype=np.float64) for name in ("score", "weight"))
    costs = measure_costs(
        known["decision"].to_numpy(dtype=str),
        is_fraud=is_fraud,
        amounts=known["amount"].to_numpy(dtype=np.float64),
        prices=prices,
    )
    assumed = prices.false_decline_goodwill * (1.0 - scores)
    actual = np.where(is_fraud, 0.0, prices.false_decline_goodwill)
    return np.where(is_seen, costs + (weights - 1.0) * (actual - assumed), assumed)


def measure_effective_size(weights: Floats) -> float:
    """Return how many rows of weight 1 these rows are worth.

    >>> round(measure_effective_size(np.array([1.0, 20.0])), 2)
    1.1
    """
    return float(weights.sum() ** 2 / np.square(weights).sum()) if weights.size else 0.0


def _resample_card_precision(known: pd.DataFrame, bootstrap: CustomerBootstrap) -> Floats:
    """Count a card's day if the outcome of its riskiest payment is known, with that one's weight.

    The team would look at a card because of that payment; a day whose riskiest payment was declined
    stands in no list, and those let through stand for it.
    """
    is_seen = known["is_fraud"].notna().to_numpy()
    weights = _find_riskiest_weights(known, bootstrap)
    rows = known[is_seen]
    return resample_card_precision(
        rows["is_fraud"].to_numpy(dtype=bool),
        rows["score"].to_numpy(dtype=np.float64),
        event_time=rows["event_time"],
        bootstrap=bootstrap.take(is_seen),
        weights=weights[is_seen],
    )


def _find_riskiest_weights(known: pd.DataFrame, bootstrap: CustomerBootstrap) -> Floats:
    """Return, for each row, the weight of its card's riskiest row of that UTC day."""
    days = known["event_time"].dt.floor("D").astype("int64").to_numpy()
    cards = bootstrap.customer_codes
    order = np.lexsort((-known["score"].to_numpy(dtype=np.float64), cards, days))
    is_first: Booleans = np.ones(order.size, dtype=bool)
    is_first[1:] = (np.diff(days[order]) != 0) | (np.diff(cards[order]) != 0)
    ranked = known["weight"].to_numpy(dtype=np.float64)[order]
    weights = np.empty(order.size)
    weights[order] = ranked[is_first][np.cumsum(is_first) - 1]
    return weights
