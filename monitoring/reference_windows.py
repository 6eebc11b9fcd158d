"""A reference period becomes alarm thresholds: how far do its own windows lie from the rest of it?

Two samples of one unchanged world always differ, by an amount that depends on their size, on the
hours and weekdays they cover and on how long bursts last. So the distance a feature may have before
it counts as drifted is read from windows of the reference itself, each as long as the window being
judged, starting at its time of day, and held against the rest of the reference.

Times are microseconds since 1970 UTC. Distances are Evidently's (a test holds them equal), computed
here because 30 windows through Evidently would take minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from features.windows import DAY, Floats, Integers
from monitoring.prediction_limits import (
    MIN_VALUES_SEEN,
    VariancePrior,
    find_prediction_limit,
    fit_variance_prior,
    measure_variance,
)

Mask = NDArray[np.bool_]

MIN_WINDOWS = MIN_VALUES_SEEN
"""Fewest windows that say anything about how windows differ."""
MIN_VALUES = 100
"""Fewest values of a column in a window; below it a distance is mostly noise."""
SMALLEST_STD = 0.001
"""Floor of the standard deviation a distance is divided by. Source: Evidently's ``wasserstein``."""
SMALLEST_DISTANCE = 0.001
"""Distances below a thousandth of a standard deviation are taken for this one."""


@dataclass(frozen=True)
class ReferenceWindow:
    """Rows of the reference that stand for one window, and those it is held against.

    Attributes:
        inside: Rows drawn from the window. Shape ``(reference rows,)``.
        outside: Rows outside the window. Shape ``(reference rows,)``.
        centre_time: Middle of the window, microseconds.
    """

    inside: Mask
    outside: Mask
    centre_time: int


@dataclass(frozen=True)
class WindowPlan:
    """Where thresholds come from.

    Attributes:
        windows: In time order; they may overlap.
        num_independent: How many fit side by side, which is what they are worth as evidence;
            not a whole number.
        days: Length of each.
        gap_days: From the last window's centre to that of the window being judged, at most the
            length of the reference; 0 if that lies earlier.
    """

    windows: tuple[ReferenceWindow, ...]
    num_independent: float
    days: float
    gap_days: float


class WindowMeasures(NamedTuple):
    """Per window: its distance, its mean (both in standard deviations) and its centre in days.

    Categories have no mean.
    """

    distances: Floats
    means: Floats | None
    days: Floats


def plan_windows(
    reference_times: Integers,
    *,
    start_time: int,
    end_time: int,
    num_windows: int,
    max_rows: int,
    seed: int,
) -> WindowPlan:
    """Lay windows over the reference that resemble the window being judged.

    Args:
        reference_times: Event times of the reference, microseconds, ascending. Shape ``(rows,)``.
        start_time: First instant of the window being judged, microseconds.
        end_time: Its last instant.
        num_windows: How many to lay at most.
        max_rows: Rows a window may have; more are sampled.
        seed: For that sample.

    Returns:
        Windows as long as the one being judged (at most a fifth of the reference, so that five fit
        side by side: shorter windows differ more, which errs towards silence), a whole number of
        days away from it where the reference is long enough. No windows if the reference is empty.
    """
    if reference_times.size == 0:
        return WindowPlan((), 0.0, 0.0, 0.0)
    first, last = int(reference_times[0]), int(reference_times[-1])
    span = last - first
    length = min(end_time - start_time, span // MIN_WINDOWS)
    starts = np.arange(first + (start_time - first) % DAY, last - length + 1, DAY)
    if starts.size < MIN_WINDOWS:
        starts = np.linspace(first, last - length, num_windows).astype(np.int64)
    chosen = np.unique(np.linspace(0, starts.size - 1, num_windows).round().astype(int))
    generator = np.random.default_rng(seed)
    windows = tuple(
        _cut_window(reference_times, int(start), length, max_rows, generator)
        for start in starts[chosen]
    )
    age = (start_time + end_time) // 2 - windows[-1].centre_time
    return WindowPlan(
        windows=windows,
        num_independent=min(span / max(length, 1), len(windows)),
        days=length / DAY,
        gap_days=min(max(age, 0), span) / DAY,
    )


def _cut_window(
    times: Integers, start: int, length: int, max_rows: int, generator: np.random.Generator
) -> ReferenceWindow:
    is_in_window = (times >= start) & (times <= start + length)
    rows = np.flatnonzero(is_in_window)
    inside = np.zeros(times.size, dtype=bool)
    inside[generator.choice(rows, min(rows.size, max_rows), replace=False)] = True
    return ReferenceWindow(inside, ~is_in_window, start + length // 2)


def find_thresholds(
    measures: Mapping[str, WindowMeasures],
    *,
    plan: WindowPlan,
    false_alarm_rates: Mapping[str, float],
) -> dict[str, float]:
    """Find the distance that each unchanged column rarely exceeds.

    Distances are positive and skewed to the right, so their logarithms are taken for normal. A
    number that was already moving during the reference may keep its pace: by the triangle
    inequality a shift by ``d`` adds at most ``d`` to the distance, so the trend of the window
    means, carried on to the window being judged, is added.

    Args:
        measures: By column, from ``measure_numeric_windows`` or ``measure_categorical_windows``.
        plan: From ``plan_windows``.
        false_alarm_rates: By column, the share of unchanged windows that may exceed its threshold.

    Returns:
        Thresholds by column; none for a column that fewer than ``MIN_WINDOWS`` windows measured.
    """
    n = plan.num_independent
    logs = {
        name: np.log(np.maximum(measured.distances, SMALLEST_DISTANCE))
        for name, measured in measures.items()
        if measured.distances.size >= MIN_WINDOWS
    }
    variances = {name: measure_variance(seen, num_independent=n) for name, seen in logs.items()}
    prior = fit_variance_prior(variances.values(), num_independent=n)
    return {
        name: _find_threshold(seen, measures[name], plan, prior, false_alarm_rates[name])
        for name, seen in logs.items()
    }


def _find_threshold(
    logs: Floats,
    measured: WindowMeasures,
    plan: WindowPlan,
    prior: VariancePrior | None,
    false_alarm_rate: float,
) -> float:
    """Return the limit of the distances, and what the trend adds to it."""
    n = plan.num_independent
    limit = find_prediction_limit(
        logs, num_independent=n, exceeded_share=false_alarm_rate, prior=prior
    )
    assert limit is not None, "columns of too few windows were left out"
    trend = 0.0
    if measured.means is not None:
        trend = measure_trend(measured.means, days=measured.days, num_independent=n)
    return float(np.exp(limit)) + trend * plan.gap_days


def measure_numeric_windows(values: Floats, *, plan: WindowPlan) -> WindowMeasures:
    """Measure how far each window of a numeric column lies from the rest of the reference.

    A window and the rest share one sorted column, so each distance costs two running sums.

    Args:
        values: The column; NaN where missing. Shape ``(reference rows,)``.
        plan: From ``plan_windows``.

    Returns:
        One row per window that holds at least ``MIN_VALUES`` values, in time order.

    Source:
        First Wasserstein distance, the area between two distribution functions, over the standard
        deviation of the rest: Evidently's ``wasserstein``.
    """
    order = np.argsort(values, kind="stable")
    order = order[np.isfinite(values[order])]
    ordered = values[order]
    rows = []
    for window in plan.windows:
        measured = _measure_window(ordered, window.inside[order], window.outside[order])
        if measured is not None:
            rows.append((*measured, window.centre_time / DAY))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return WindowMeasures(*columns)


@njit(cache=True, nogil=True)
def _measure_window(ordered: Floats, inside: Mask, outside: Mask) -> tuple[float, float] | None:
    """Return a window's distance and its mean; None if it, or the rest, has too few values."""
    num_inside, num_outside = inside.sum(), outside.sum()
    if min(num_inside, num_outside) < MIN_VALUES:
        return None
    mean_inside = mean_outside = 0.0
    for row in range(ordered.size):
        if inside[row]:
            mean_inside += ordered[row] / num_inside
        if outside[row]:
            mean_outside += ordered[row] / num_outside
    area = squares = 0.0
    seen_inside = seen_outside = 0
    for row in range(ordered.size):
        if row:
            difference = seen_inside / num_inside - seen_outside / num_outside
            area += abs(difference) * (ordered[row] - ordered[row - 1])
        seen_inside += inside[row]
        seen_outside += outside[row]
        if outside[row]:
            squares += (ordered[row] - mean_outside) ** 2
    norm = max(np.sqrt(squares / num_outside), SMALLEST_STD)
    return area / norm, mean_inside / norm


def measure_trend(means: Floats, *, days: Floats, num_independent: float) -> float:
    """Measure how fast window means move, beyond what chance would make of still ones.

    Args:
        means: One per window. Shape ``(windows,)``.
        days: When each window was, in days from any instant.
        num_independent: How many independent windows these are worth.

    Returns:
        The least-squares slope's size per day less its standard error, at least 0.

    >>> round(measure_trend(np.arange(9.0), days=np.arange(9.0), num_independent=9), 6)
    1.0
    """
    slope, level = np.polyfit(days - days[0], means, 1)
    residuals = means - level - slope * (days - days[0])
    freedom = max(num_independent - 2, 1.0)
    standard_error = float(np.std(residuals) / np.std(days) / np.sqrt(freedom))
    return max(abs(float(slope)) - standard_error, 0.0)


def measure_categorical_windows(codes: Integers, *, plan: WindowPlan) -> WindowMeasures:
    """Measure how far each window's categories lie from the rest; see the numeric twin.

    Args:
        codes: Category of each reference row, 0 upwards; -1 where missing.
        plan: From ``plan_windows``.

    Source:
        Jensen-Shannon distance with natural logarithms: Evidently's ``jensenshannon``.
    """
    num_codes = int(codes.max(initial=-1)) + 1
    distances, days = [], []
    for window in plan.windows:
        inside, outside = (codes[rows & (codes >= 0)] for rows in (window.inside, window.outside))
        if min(inside.size, outside.size) < MIN_VALUES:
            continue
        before, now = (np.bincount(part, minlength=num_codes) for part in (outside, inside))
        with np.errstate(invalid="ignore"):  # equal shares: rounding, below 0 under the root
            distances.append(float(jensenshannon(before, now)))
        days.append(window.centre_time / DAY)
    measured = np.nan_to_num(np.array(distances, dtype=np.float64))
    return WindowMeasures(measured, None, np.array(days, dtype=np.float64))
