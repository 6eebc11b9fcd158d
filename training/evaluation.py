"""Scores on rows a model has not seen become every number and curve the run reports.

Each metric stands beside its interval, each model beside baselines that anyone could build, each
total beside its parts: fraud patterns, card types, customers without much history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from training.bootstrap import (
    CustomerBootstrap,
    find_interval,
    resample_card_precision,
    resample_mean,
    resample_probabilities,
    resample_ranks,
)
from training.calibration import IDENTITY
from training.encoding import Booleans, Encoding, Floats
from training.linear import fit_linear
from training.metrics import count_ranks
from training.operating_point import Prices, Thresholds, measure_costs
from training.rows import LabelledRows
from training.scorers import LinearScorer

MIN_FRAUDS_FOR_INTERVAL = 5
"""Below this many frauds an interval says more about luck than about the model: none is given."""
MAX_CURVE_POINTS = 500
NUM_RELIABILITY_BINS = 10


def evaluate_scores(
    rows: LabelledRows, scores: Floats, *, bootstrap: CustomerBootstrap
) -> dict[str, Any]:
    """Compute every metric with its interval.

    Args:
        rows: Labelled rows the model has not seen.
        scores: Calibrated probabilities. Shape ``(rows,)``.
        bootstrap: The resamples, the same for all models that are compared.

    Returns:
        Each metric by name and, beside it, ``<metric>_interval`` as ``[low, high]``.
    """
    is_fraud = rows.is_fraud
    resampled = {
        **resample_ranks(is_fraud, scores, bootstrap=bootstrap),
        "card_precision_at_100": resample_card_precision(
            is_fraud, scores, event_time=rows.transactions["event_time"], bootstrap=bootstrap
        ),
        **resample_probabilities(is_fraud, scores, bootstrap=bootstrap),
    }
    return _summarise(resampled, num_frauds=int(is_fraud.sum()))


def evaluate_parts(
    rows: LabelledRows,
    scores: Floats,
    *,
    parts: Mapping[str, Booleans],
    bootstrap: CustomerBootstrap,
) -> dict[str, dict[str, Any]]:
    """Compute the rank metrics on parts of the rows.

    Args:
        rows: Labelled rows.
        scores: Calibrated probabilities.
        parts: Which rows belong to each part, by name.
        bootstrap: The resamples.

    Returns:
        By part: ``transactions``, ``frauds`` and, where there is a fraud, the rank metrics.
    """
    found = {}
    for name, part in parts.items():
        is_fraud = rows.is_fraud[part]
        counts = {"transactions": int(part.sum()), "frauds": int(is_fraud.sum())}
        if counts["frauds"]:
            ranks = resample_ranks(is_fraud, scores[part], bootstrap=bootstrap.take(part))
            counts |= _summarise(ranks, num_frauds=counts["frauds"])
        found[name] = counts
    return found


def find_patterns(rows: LabelledRows) -> dict[str, Booleans]:
    """Pair each fraud pattern with all legitimate rows; empty where the truth names none."""
    patterns = rows.transactions["fraud_pattern"].to_numpy(dtype=object)
    is_fraud = rows.is_fraud
    names = sorted({str(name) for name in patterns[is_fraud]} - {""})
    return {name: ~is_fraud | (patterns == name) for name in names}


def find_slices(
    rows: LabelledRows, *, encoding: Encoding, known_frauds: pd.DataFrame
) -> dict[str, Booleans]:
    """Find the groups whose performance may differ from the whole.

    Args:
        rows: Labelled rows.
        encoding: Names the columns of their matrix.
        known_frauds: ``customer_id`` and ``label_time`` of every reported fraud.

    Returns:
        One group per card type; ``new_customers`` without a transaction in the week before; and
        ``no_known_fraud``, customers of whom no fraud had been reported when they paid.

    Source: known cards left in a test flatter a model, Fraud Detection Handbook, chapter 3.
    """
    transactions = rows.transactions
    first_report = known_frauds.groupby("customer_id")["label_time"].min()
    reported = transactions["customer_id"].map(first_report)
    slices = {
        "no_known_fraud": ~(reported <= transactions["event_time"]).to_numpy(dtype=bool),
    }
    if "customer_tx_count_7d" in encoding.features:
        counts = rows.matrix[:, encoding.features.index("customer_tx_count_7d")]
        slices["new_customers"] = counts == 0
    if "card_type" in transactions:
        for name in sorted(transactions["card_type"].dropna().unique()):
            slices[f"card_type={name}"] = (transactions["card_type"] == name).to_numpy(dtype=bool)
    return slices


def score_baselines(test: LabelledRows, *, train: LabelledRows) -> dict[str, Floats]:
    """Score rows as anyone could without a model.

    Args:
        test: Rows to score.
        train: Rows to learn the share of frauds and the rule from.

    Returns:
        ``constant``, the share of frauds; and ``amount_rule``, the amount alone, as a probability.
    """
    encoding = Encoding(("amount",), {})
    rule = LinearScorer(fit_linear(train.amounts[:, None], train.is_fraud, encoding=encoding))
    return {
        "constant": np.full(len(test), train.is_fraud.mean()),
        "amount_rule": IDENTITY.apply(rule.margins(test.amounts[:, None])),
    }


def compare_average_precision(
    rows: LabelledRows, scores: Mapping[str, Floats], *, bootstrap: CustomerBootstrap
) -> dict[str, dict[str, Any]]:
    """Say by how much the first model beats each other one, on the same resamples.

    Args:
        rows: Labelled rows.
        scores: Probabilities by model, the first being the one in question.
        bootstrap: The resamples.

    Returns:
        By other model: ``average_precision_gain`` and its interval; an interval above 0 says that
        the gain is not luck.
    """
    values = {
        name: resample_ranks(rows.is_fraud, values, bootstrap=bootstrap)["average_precision"]
        for name, values in scores.items()
    }
    first, *others = values
    num_frauds = int(rows.is_fraud.sum())
    return {
        other: _summarise(
            {"average_precision_gain": values[first] - values[other]}, num_frauds=num_frauds
        )
        for other in others
    }


def evaluate_decisions(
    rows: LabelledRows,
    scores: Floats,
    *,
    thresholds: Thresholds,
    prices: Prices,
    daily_review_capacity: int,
) -> dict[str, Any]:
    """Price the decisions a model would have taken, beside approving everything.

    Args:
        rows: Labelled rows the thresholds were not chosen on.
        scores: Calibrated probabilities.
        thresholds: The operating point.
        prices: What outcomes cost.
        daily_review_capacity: Reviews possible per day.

    Returns:
        Thresholds, costs per day in account currency, reviews and declines per day, the days on
        which reviewers could not keep up, and the share of frauds (by number and by amount) that
        was reviewed or declined.
    """
    is_fraud, amounts, num_days = rows.is_fraud, rows.amounts, max(1, len(np.unique(rows.days)))
    decisions = thresholds.decide(scores, amounts)
    nothing = np.full(len(rows), "approve")
    reviews_by_day = np.unique(rows.days[decisions == "review"], return_counts=True)[1]
    stopped, frauds = is_fraud & (decisions != "approve"), max(1, int(is_fraud.sum()))

    def price(taken: np.ndarray) -> float:
        costs = measure_costs(taken, is_fraud=is_fraud, amounts=amounts, prices=prices)
        return float(costs.sum() / num_days)

    return {
        "review_threshold": thresholds.review,
        "decline_threshold": thresholds.decline,
        "cost_per_day": price(decisions),
        "cost_per_day_approving_all": price(nothing),
        "reviews_per_day": float((decisions == "review").sum() / num_days),
        "declines_per_day": float((decisions == "decline").sum() / num_days),
        "days_over_review_capacity": int((reviews_by_day > daily_review_capacity).sum()),
        "frauds_stopped_share": float(stopped.sum() / frauds),
        "fraud_amount_stopped_share": float(
            amounts[stopped].sum() / max(1e-9, amounts[is_fraud].sum())
        ),
    }


def evaluate_cost(
    rows: LabelledRows,
    scores: Floats,
    *,
    thresholds: Thresholds,
    prices: Prices,
    bootstrap: CustomerBootstrap,
) -> dict[str, Any]:
    """Return ``cost_per_1000`` transactions, account currency, with its interval."""
    costs = measure_costs(
        thresholds.decide(scores, rows.amounts),
        is_fraud=rows.is_fraud,
        amounts=rows.amounts,
        prices=prices,
    )
    resampled = 1000.0 * resample_mean(costs, bootstrap=bootstrap)
    return _summarise({"cost_per_1000": resampled}, num_frauds=int(rows.is_fraud.sum()))


def trace_precision_recall(is_fraud: Booleans, scores: Floats) -> dict[str, list[float]]:
    """Trace precision against recall, at most ``MAX_CURVE_POINTS`` points, recall rising."""
    counts = count_ranks(is_fraud, scores)
    caught, alarms = counts.frauds[:, 0].cumsum(), counts.legitimate[:, 0].cumsum()
    ends = np.flatnonzero(counts.frauds[:, 0] > 0)  # precision peaks where a fraud is caught
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, MAX_CURVE_POINTS).round().astype(int))]
    return {
        "recall": (caught[kept] / max(1.0, caught[-1])).tolist(),
        "precision": (caught[kept] / (caught[kept] + alarms[kept])).tolist(),
    }


def trace_calibration(is_fraud: Booleans, scores: Floats) -> dict[str, list[float]]:
    """Trace the share of frauds against the mean probability, probability rising.

    Bins hold equal sums of probability, that is, as many expected frauds each: with bins of equal
    size, as ECE has, a rare event leaves all but the last without a fraud.
    """
    ranked = np.argsort(scores, kind="stable")
    scores, is_fraud = scores[ranked], is_fraud[ranked]
    edges = np.arange(1, NUM_RELIABILITY_BINS) / NUM_RELIABILITY_BINS * scores.sum()
    bins = np.unique(np.searchsorted(edges, scores.cumsum()), return_inverse=True)[1]
    sizes = np.bincount(bins)
    return {
        "probability": (np.bincount(bins, weights=scores) / sizes).tolist(),
        "fraud_share": (np.bincount(bins, weights=is_fraud) / sizes).tolist(),
    }


def _summarise(resampled: Mapping[str, Floats], *, num_frauds: int) -> dict[str, Any]:
    """Give each metric's plain value (column 0) and its interval; NaN becomes None, for JSON."""
    found: dict[str, Any] = {}
    for name, values in resampled.items():
        found[name] = None if np.isnan(values[0]) else float(values[0])
        if num_frauds >= MIN_FRAUDS_FOR_INTERVAL and found[name] is not None:
            found[f"{name}_interval"] = find_interval(values)
    return found
