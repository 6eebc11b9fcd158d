"""Predictions meet their late outcomes and become the model's realised performance.

Frauds are reported early and innocence is only known once the label delay has passed, so scores of
recent transactions beside the labels known so far would show a world full of fraud. Only matured
predictions count: older than the label delay, with a label that had arrived by ``now``. What is
still immature is always part of the answer. What was declined has no outcome, whatever a label file
may say of it; see ``monitoring.realised_metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from monitoring.realised_metrics import METRICS, measure_effective_size, resample_metrics
from training.bootstrap import draw_customers, find_interval
from training.operating_point import Prices

NORMAL_95 = 1.96
"""Half a 95 % interval in standard errors."""


@dataclass(frozen=True)
class PerformanceLimits:
    """When realised performance is believed, and when it is too bad.

    Attributes:
        max_average_precision_drop: Share of the expected that may be lost, in [0, 1].
        max_cost_increase: Of the expected, as a share of it.
        min_frauds: Fewest matured frauds, in effective number, that give a number.
        false_alarm_rate: How often chance alone may make either of the two seem worse.
    """

    max_average_precision_drop: float
    max_cost_increase: float
    min_frauds: int
    false_alarm_rate: float


@dataclass(frozen=True)
class Performance:
    """How well the champion's answers held up, as far as the truth is known.

    Attributes:
        is_degraded: Average precision fell, or cost rose, by more than allowed and by more than
            chance explains.
        reason: One line for a person.
        num_predictions: Rows asked about, each transaction once.
        num_matured: Rows old enough for their truth to be known.
        num_labelled: Matured rows whose outcome arrived.
        num_frauds: Frauds among those.
        num_declined: Matured rows that have no outcome since they were declined.
        num_explored: Labelled rows that would have been declined and were let through.
        effective_rows: What the labelled rows are worth, given their weights.
        immature_share: Share of rows too young to be judged.
        unlabelled_share: Share of matured rows, declined ones aside, whose label never came.
        metrics: Each of ``METRICS`` and ``<metric>_interval``, 95 %, over matured rows; empty with
            too little to go by.
        expected: What the champion had on its own test period, by the same names.
    """

    is_degraded: bool
    reason: str
    num_predictions: int
    num_matured: int
    num_labelled: int
    num_frauds: int
    num_declined: int
    num_explored: int
    effective_rows: float
    immature_share: float
    unlabelled_share: float
    metrics: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether there was enough to judge by."""
        return bool(self.metrics)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON, one level deep, metrics that are not known as ``None``."""
        counts = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("metrics", "expected")
        }
        unknown = {key: None for name in METRICS for key in (name, f"{name}_interval")}
        expected = {f"expected_{name}": self.expected.get(name) for name in METRICS[:3]}
        return {**counts, **unknown, **self.metrics, **expected}


def join_outcomes(
    predictions: pd.DataFrame, *, labels: pd.DataFrame, now: pd.Timestamp, label_delay_days: int
) -> pd.DataFrame:
    """Join each predicted transaction with its outcome as it was known at ``now``.

    Args:
        predictions: ``transaction_id``, ``event_time`` (UTC), in order of ``prediction_time``; a
            transaction answered twice counts once, with its first answer; ``outcome_share``, the
            chance with which its outcome can be seen, in [0, 1].
        labels: ``transaction_id``, ``is_fraud``, ``label_time`` (UTC); later labels are unknown.
        now: As of when, UTC.
        label_delay_days: Days after which a transaction without a report counts as legitimate.

    Returns:
        One row per transaction in the order of ``predictions``, its columns plus ``is_matured``,
        ``is_fraud`` (1 or 0, NaN where there is no label by ``now``, and where the transaction was
        declined) and ``weight`` (how many answers an outcome stands for, 0 where declined).
    """
    arrived = labels.loc[labels["label_time"] <= now, ["transaction_id", "is_fraud"]]
    outcomes = predictions.drop_duplicates("transaction_id")
    shares = outcomes["outcome_share"].to_numpy(dtype=np.float64)
    is_visible = shares > 0
    is_fraud = arrived.set_index("transaction_id")["is_fraud"].astype(np.float64)
    return outcomes.assign(
        is_fraud=outcomes["transaction_id"].map(is_fraud).where(is_visible),
        is_matured=outcomes["event_time"] <= now - pd.Timedelta(days=label_delay_days),
        weight=np.divide(1.0, shares, out=np.zeros(len(shares)), where=is_visible),
    )


def select_known(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Keep matured rows whose outcome arrived, and those that were declined and never get one."""
    is_known = outcomes["is_fraud"].notna() | (outcomes["weight"] == 0)
    return outcomes[outcomes["is_matured"] & is_known]


def measure_performance(
    outcomes: pd.DataFrame,
    *,
    expected: Mapping[str, Any],
    prices: Prices,
    limits: PerformanceLimits,
    num_resamples: int,
    seed: int,
) -> Performance:
    """Measure what the champion's answers were worth on matured labels.

    Args:
        outcomes: From ``join_outcomes``, with ``customer_id``, ``amount``, ``score``, ``decision``.
        expected: The champion's metrics on its own test period, with ``<metric>_interval``.
        prices: What outcomes cost.
        limits: See ``PerformanceLimits``.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Returns:
        Numbers over matured rows only, or the reason why there are none yet.
    """
    known = select_known(outcomes)
    labelled = known[known["is_fraud"].notna()]
    is_fraud = labelled["is_fraud"].to_numpy(dtype=bool)
    weights = labelled["weight"].to_numpy(dtype=np.float64)
    metrics: dict[str, Any] = {}
    reason = _explain_unknown(outcomes, known, limits)
    if reason is None:
        bootstrap = draw_customers(known["customer_id"], num_resamples=num_resamples, seed=seed)
        resampled = resample_metrics(known, prices=prices, bootstrap=bootstrap)
        for name, values in resampled.items():
            metrics |= {name: float(values[0]), f"{name}_interval": find_interval(values)}
    is_degraded, verdict = _judge(metrics, expected, limits)
    matured = outcomes[outcomes["is_matured"]]
    return Performance(
        is_degraded=is_degraded,
        reason=reason or f"{verdict}, over {is_fraud.sum()} matured frauds",
        num_predictions=len(outcomes),
        num_matured=len(matured),
        num_labelled=len(labelled),
        num_frauds=int(is_fraud.sum()),
        num_declined=len(known) - len(labelled),
        num_explored=int((weights > 1).sum()),
        effective_rows=measure_effective_size(weights),
        immature_share=1 - len(matured) / max(len(outcomes), 1),
        unlabelled_share=1 - len(labelled) / max((matured["weight"] > 0).sum(), 1),
        metrics=metrics,
        expected=dict(expected),
    )


def _explain_unknown(
    outcomes: pd.DataFrame, known: pd.DataFrame, limits: PerformanceLimits
) -> str | None:
    """Say why there is no number, if so."""
    labelled = known[known["is_fraud"].notna()]
    is_fraud = labelled["is_fraud"].to_numpy(dtype=bool)
    weights = labelled["weight"].to_numpy(dtype=np.float64)
    num_effective = measure_effective_size(weights[is_fraud])
    immature_share = 1 - outcomes["is_matured"].sum() / max(len(outcomes), 1)
    if num_effective < limits.min_frauds or is_fraud.all():
        return (
            f"performance unknown: {num_effective:.0f} matured frauds of at least "
            f"{limits.min_frauds}, {immature_share:.0%} of predictions are immature"
        )
    unseen = explain_unseen(
        num_declined=len(known) - len(labelled), num_explored=int((weights > 1).sum())
    )
    return unseen and f"performance unknown: {unseen}"


def explain_unseen(*, num_declined: int, num_explored: int) -> str | None:
    """Say why outcomes that were seen do not stand for all that was answered, if so.

    Args:
        num_declined: Rows that have no outcome since they were declined.
        num_explored: Rows with an outcome that would have been declined and were let through.

    >>> explain_unseen(num_declined=0, num_explored=0) is None
    True
    """
    if not num_declined or num_explored:
        return None
    return (
        f"{num_declined} declined transactions have no outcome and none like them was let "
        "through; raise serving.explore_share"
    )


def _judge(
    metrics: Mapping[str, Any], expected: Mapping[str, Any], limits: PerformanceLimits
) -> tuple[bool, str]:
    """Say whether anything is worse than it may be and than chance makes it, and what was found."""
    allowed = {
        "average_precision": (-1.0, limits.max_average_precision_drop),
        "cost_per_1000": (1.0, limits.max_cost_increase),
    }
    quantile = float(norm.ppf(1 - limits.false_alarm_rate))
    worse, found = False, []
    for name, (worse_sign, share) in allowed.items():
        if name not in metrics:
            continue
        low, high = metrics[f"{name}_interval"]
        found.append(
            f"realised {name.replace('_', ' ')} {metrics[name]:.4g} [{low:.4g}, {high:.4g}]"
        )
        if expected.get(name) is None:
            continue
        found[-1] += f" where {expected[name]:.4g} was expected"
        loss = worse_sign * (metrics[name] - expected[name])
        chance = quantile * _measure_error(metrics, expected, name)
        worse |= loss > share * expected[name] and loss > chance
    return worse, "; ".join(found)


def _measure_error(metrics: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> float:
    """Return the standard error of a difference of two independent estimates, from intervals."""
    intervals = (side.get(f"{name}_interval") for side in (metrics, expected))
    widths = [high - low for low, high in (known for known in intervals if known is not None)]
    return float(np.hypot.reduce(widths)) / (2.0 * NORMAL_95)
