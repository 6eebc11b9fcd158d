"""Values seen before become the limit that one further value of the same kind rarely exceeds.

Five weeks of a reference say little about how much one column's distance varies from week to week,
and a limit that trusts five numbers must be very wide. Thirty columns together say how much such
distances vary, so each column's own variance is pulled towards what is usual among all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import t as student_t

from training.encoding import Floats

MIN_VALUES_SEEN = 5
"""Fewest values that say anything about the next one."""
MAX_PRIOR_FREEDOM = 30.0
"""What all columns together may count for at most: they move together, so they are worth less."""
SMALLEST_VARIANCE = 1e-8
"""Of logarithms; below it a column stood still and says nothing about the others."""


@dataclass(frozen=True)
class VariancePrior:
    """What is usual among columns: ``variance``, worth ``freedom`` further observations."""

    variance: float
    freedom: float


def find_prediction_limit(
    seen: Floats,
    *,
    num_independent: float,
    exceeded_share: float,
    prior: VariancePrior | None = None,
) -> float | None:
    """Find the value one further observation exceeds with the given probability.

    A quantile at 1 - 0.01 cannot be read from 30 values, so they are taken for normal. Overlapping
    windows count as the number that fit side by side.

    Args:
        seen: What was observed. Shape ``(values,)``.
        num_independent: How many independent values these are worth, at least 2.
        exceeded_share: In (0, 1).
        prior: The variance that is usual; without one, only what was seen counts.

    Returns:
        The limit; ``None`` for fewer than ``MIN_VALUES_SEEN`` values.

    Source:
        One-sided prediction limit for one future observation, mean + t(n - 1) s sqrt(1 + 1 / n)
        (Hahn and Meeker, Statistical Intervals, 1991, section 4.8), its variance and degrees of
        freedom moderated as in Smyth, "Linear models and empirical Bayes methods for assessing
        differential expression in microarray experiments", 2004, equation 6.
    """
    if seen.size < MIN_VALUES_SEEN:
        return None
    n = max(num_independent, 2.0)
    freedom, variance = n - 1.0, measure_variance(seen, num_independent=n)
    if prior is not None:
        variance = (prior.freedom * prior.variance + freedom * variance) / (prior.freedom + freedom)
        freedom += prior.freedom
    quantile = float(student_t.ppf(1 - exceeded_share, freedom))
    return float(seen.mean() + quantile * np.sqrt(variance * (1 + 1 / n)))


def measure_variance(seen: Floats, *, num_independent: float) -> float:
    """Return the unbiased variance of values worth ``num_independent`` independent ones."""
    n = max(num_independent, 2.0)
    return float(np.var(seen)) * n / (n - 1)


def fit_variance_prior(
    variances: Iterable[float], *, num_independent: float
) -> VariancePrior | None:
    """Fit what is usual among the variances of several columns.

    Args:
        variances: From ``measure_variance``, one per column.
        num_independent: As there, the same for all.

    Returns:
        The prior; ``None`` if fewer than three columns moved at all.

    Source: Smyth, 2004, section 6.2: moments of the logarithm of a scaled F variable.
    """
    moved = np.array([variance for variance in variances if variance > SMALLEST_VARIANCE])
    if moved.size < 3:
        return None
    half = (max(num_independent, 2.0) - 1.0) / 2.0
    logs = np.log(moved) - digamma(half) + np.log(half)
    spread = float(np.var(logs, ddof=1) - polygamma(1, half))
    half_freedom = MAX_PRIOR_FREEDOM / 2.0
    if spread > polygamma(1, half_freedom):
        half_freedom = brentq(lambda x: polygamma(1, x) - spread, 1e-3, half_freedom)
    usual = float(np.exp(logs.mean() + digamma(half_freedom) - np.log(half_freedom)))
    return VariancePrior(usual, freedom=2.0 * float(half_freedom))
