"""Matured labels become a verdict on the share of frauds: is it the one the champion learned from?

Frauds come in bursts: one card, one night, one ring. Rows are not independent, and a test that took
them to be would see a change every other week. So the variance is corrected by what the history
itself shows: how much more its customers and its days differ than chance would make them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from training.encoding import Floats, Integers


@dataclass(frozen=True)
class BaseRate:
    """The share of frauds now and before.

    Attributes:
        is_changed: The shares differ by more than chance explains.
        reason: One line for a person.
        num_rows: Matured rows it was measured on.
        share: Of frauds among them, weighted; ``None`` with too few, as the rest.
        expected_share: Among the history's.
        z_score: The difference in standard errors.
        design_effect: Times the variance of independent rows.
    """

    is_changed: bool
    reason: str
    num_rows: int
    share: float | None = None
    expected_share: float | None = None
    z_score: float | None = None
    design_effect: float | None = None

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def check_base_rate(
    known: pd.DataFrame, *, history: pd.DataFrame, min_frauds: int, false_alarm_rate: float
) -> BaseRate:
    """Test whether the share of frauds has changed.

    Weights go with outcomes: who would be declined, and stands for many, mostly is a fraud. So the
    variance is that of the weighted residuals, of both samples together: a week may hold none of
    the few rows that weigh most.

    Args:
        known: Matured rows with an outcome: ``is_fraud``, ``weight`` (how many answers each stands
            for).
        history: What it is held against, with the same columns, ``customer_id`` and ``event_time``.
        min_frauds: Fewest frauds in either for a verdict.
        false_alarm_rate: How often an unchanged share may be called changed.

    Returns:
        The verdict.

    Source: two-proportion z-test with the variance multiplied by a design effect (Rao and Scott,
        "A simple method for the analysis of clustered binary data", 1992); linearised variance of a
        weighted share (Lohr, "Sampling: Design and Analysis").
    """
    least = min(int(rows["is_fraud"].astype(bool).sum()) for rows in (known, history))
    if least < min_frauds:
        reason = f"share of frauds unknown: {least} matured frauds of at least {min_frauds}"
        return BaseRate(False, reason, num_rows=len(known))
    effect = measure_design_effect(history)
    (share, size), (usual, usual_size) = (_measure_share(rows) for rows in (known, history))
    pooled = (share * size + usual * usual_size) / (size + usual_size)
    spread = sum(_sum_spread(rows, pooled) for rows in (known, history)) / (size + usual_size)
    error = np.sqrt(effect * spread * (1 / size + 1 / usual_size))
    z_score = float((share - usual) / error)
    limit = float(norm.ppf(1 - false_alarm_rate / 2))
    return BaseRate(
        is_changed=abs(z_score) > limit,
        reason=f"{share:.2%} of matured answers were frauds, {usual:.2%} before: {z_score:+.1f} "
        f"standard errors, an alarm from {limit:.1f}",
        num_rows=len(known),
        share=share,
        expected_share=usual,
        z_score=z_score,
        design_effect=effect,
    )


def measure_design_effect(history: pd.DataFrame) -> float:
    """Measure how many times more the share of frauds varies than with independent rows.

    Args:
        history: ``is_fraud``, ``weight``, ``customer_id`` and ``event_time``.

    Returns:
        At least 1.

    Source: two-way clustering, variance by customer plus variance by day less variance by both
        (Cameron, Gelbach and Miller, "Robust inference with multiway clustering", 2011).
    """
    weights = history["weight"].to_numpy(dtype=np.float64)
    residuals = weights * (
        history["is_fraud"].to_numpy(dtype=np.float64) - _measure_share(history)[0]
    )
    customers = pd.factorize(history["customer_id"])[0].astype(np.int64)
    days = pd.factorize(history["event_time"].dt.floor("D"))[0].astype(np.int64)
    both = customers * (days.max() + 1) + days
    clustered = _sum_squares(residuals, customers) + _sum_squares(residuals, days)
    clustered -= _sum_squares(residuals, np.unique(both, return_inverse=True)[1])
    return max(clustered / float(np.square(residuals).sum()), 1.0)


def _sum_squares(residuals: Floats, clusters: Integers) -> float:
    return float(np.square(np.bincount(clusters, weights=residuals)).sum())


def _measure_share(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the weighted share of frauds and the sum of weights."""
    weights = rows["weight"].to_numpy(dtype=np.float64)
    is_fraud = rows["is_fraud"].to_numpy(dtype=np.float64)
    return float(np.average(is_fraud, weights=weights)), float(weights.sum())


def _sum_spread(rows: pd.DataFrame, share: float) -> float:
    weights = rows["weight"].to_numpy(dtype=np.float64)
    residuals = rows["is_fraud"].to_numpy(dtype=np.float64) - share
    return float(np.square(weights * residuals).sum())
