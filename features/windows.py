"""Events of many entities, sorted, become windowed aggregates at asked times, strictly past.

A window of length W asked at time t covers its entity's events with ``t - W <= event_time < t``:
the event being scored, and any other at the same instant, is outside. The same functions serve a
whole history (every transaction is a query) and one request (a single query on one entity's
events), so what is trained on and what is served cannot differ.

Layout: events stand one entity after the other and in time order within each, so entity ``g`` owns
``events[event_starts[g]:event_starts[g + 1]]``; queries likewise. ``find_bounds`` turns times into
index ranges ``[low, high)``; everything else slides over those once, in linear time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

SECOND = 1_000_000
"""Microseconds; every time here is an integer of microseconds since 1970-01-01 UTC."""
HOUR = 3600 * SECOND
DAY = 24 * HOUR


class Bounds(NamedTuple):
    """One half-open index range into the events per query; both columns never decrease."""

    low: Integers
    high: Integers


class Moments(NamedTuple):
    """Mean, population standard deviation and maximum per query; NaN where a window is empty."""

    mean: Floats
    std: Floats
    max: Floats


class Matches(NamedTuple):
    """Per query: how many different codes its window holds, and how often it holds the query's."""

    distinct: Floats
    matching: Floats


class Grouping(NamedTuple):
    """``rows[order]`` stands entity by entity, in time order; ``starts`` are the group borders."""

    order: Integers
    starts: Integers


def group_rows(entities: Integers, times: Integers, *, num_entities: int) -> Grouping:
    """Order rows by entity and time.

    Args:
        entities: Code of each row's entity, in ``[0, num_entities)``. Shape ``(rows,)``.
        times: Time of each row, microseconds. Shape ``(rows,)``.
        num_entities: How many groups there are, empty ones included.

    Returns:
        ``order`` of shape ``(rows,)`` and ``starts`` of shape ``(num_entities + 1,)``. Rows of one
        entity at one instant keep their order.

    Raises:
        ValueError: If a code is negative.
    """
    starts = np.append(0, np.cumsum(np.bincount(entities, minlength=num_entities)))
    is_in_time_order = bool((times[1:] >= times[:-1]).all())
    rows = np.arange(times.size) if is_in_time_order else np.argsort(times, kind="stable")
    return Grouping(_place_rows(entities, rows, starts), starts)


@njit(cache=True, nogil=True)
def _place_rows(entities: Integers, rows: Integers, starts: Integers) -> Integers:
    # A counting sort, stable and linear, where comparing entities would cost most of a run.
    places, order = starts[:-1].copy(), np.empty(rows.size, np.int64)
    for row in rows:
        order[places[entities[row]]] = row
        places[entities[row]] += 1
    return order


@njit(cache=True, nogil=True)
def find_bounds_into(
    event_times: Integers,
    event_starts: Integers,
    query_times: Integers,
    query_starts: Integers,
    length: int,
    low: Integers,
    high: Integers,
) -> None:
    """Fill ``low`` and ``high``: ``find_bounds`` for code that is itself compiled."""
    for group in range(query_starts.size - 1):
        first = last = event_starts[group]
        end = event_starts[group + 1]
        for query in range(query_starts[group], query_starts[group + 1]):
            time = query_times[query]
            while last < end and event_times[last] < time:
                last += 1
            while first < last and event_times[first] < time - length:
                first += 1
            low[query] = first
            high[query] = last


def find_bounds(
    event_times: Integers,
    event_starts: Integers,
    query_times: Integers,
    query_starts: Integers,
    *,
    length: int,
) -> Bounds:
    """Find which events each query's window covers.

    Args:
        event_times: Microseconds, ascending within each group. Shape ``(events,)``.
        event_starts: Group borders of the events. Shape ``(groups + 1,)``.
        query_times: Microseconds, ascending within each group. Shape ``(queries,)``.
        query_starts: Group borders of the queries, same groups. Shape ``(groups + 1,)``.
        length: Length of the window, microseconds.

    Returns:
        Index ranges of the events in ``[t - length, t)``; ``low == high`` where there are none.

    >>> times, one_group = np.array([0, 5, 9]), np.array([0, 3])
    >>> find_bounds(times, one_group, times, one_group, length=5).low.tolist()
    [0, 0, 1]
    """
    bounds = Bounds(*(np.empty(query_times.size, np.int64) for _ in Bounds._fields))
    find_bounds_into(event_times, event_starts, query_times, query_starts, length, *bounds)
    return bounds


@njit(cache=True, nogil=True)
def merge_moments(
    num_a: float, mean_a: float, m2_a: float, num_b: float, mean_b: float, m2_b: float
) -> tuple[float, float]:
    """Mean and sum of squared deviations of two samples together (Chan, Golub, LeVeque 1979)."""
    if num_a == 0:
        return mean_b, m2_b
    if num_b == 0:
        return mean_a, m2_a
    delta = mean_b - mean_a
    weight = num_b / (num_a + num_b)
    return mean_a + delta * weight, m2_a + m2_b + delta * delta * num_a * weight


@njit(cache=True, nogil=True)
def slide_moments_into(
    values: Floats, low: Integers, high: Integers, mean: Floats, std: Floats, maximum: Floats
) -> None:
    """Fill mean, std and maximum: ``slide_moments`` for code that is itself compiled."""
    # Two stacks: old_*[i - base] aggregates values[i:border], new_* aggregates values[border:last].
    # Nothing is ever subtracted, so no rounding error builds up along a history.
    depth = 0  # the fullest window; so small that the old stack stays in cache
    for query in range(low.size):
        depth = max(depth, high[query] - low[query])
    old_mean, old_m2, old_max = np.empty(depth), np.empty(depth), np.empty(depth)
    base = border = last = 0
    new_mean, new_m2, new_max = 0.0, 0.0, -np.inf
    for query in range(low.size):
        first = low[query]
        if first >= border:  # the old stack is used up: the new one becomes the old
            base, border, last = first, high[query], high[query]
            new_mean, new_m2, new_max = 0.0, 0.0, -np.inf
            merged_mean, merged_m2, merged_max = 0.0, 0.0, -np.inf
            for i in range(border - 1, first - 1, -1):
                merged_mean, merged_m2 = merge_moments(
                    1.0, values[i], 0.0, border - 1.0 - i, merged_mean, merged_m2
                )
                merged_max = max(merged_max, values[i])
                old_mean[i - base], old_m2[i - base] = merged_mean, merged_m2
                old_max[i - base] = merged_max
        while last < high[query]:
            new_mean, new_m2 = merge_moments(
                float(last - border), new_mean, new_m2, 1.0, values[last], 0.0
            )
            new_max = max(new_max, values[last])
            last += 1
        num = float(last - first)
        if num == 0:
            mean[query] = std[query] = maximum[query] = np.nan
        elif first == border:
            mean[query], std[query], maximum[query] = new_mean, np.sqrt(new_m2 / num), new_max
        else:
            mean[query], m2 = merge_moments(
                float(border - first), old_mean[first - base], old_m2[first - base],
                float(last - border), new_mean, new_m2,
            )  # fmt: skip
            std[query] = np.sqrt(m2 / num)
            maximum[query] = max(old_max[first - base], new_max)


def slide_moments(values: Floats, bounds: Bounds) -> Moments:
    """Aggregate the values each window covers, in time linear in events plus queries.

    Args:
        values: One finite number per event. Shape ``(events,)``.
        bounds: Windows from ``find_bounds``. Shape ``(queries,)``.

    Returns:
        Mean, population standard deviation and maximum per query; NaN where the window is empty.

    Source:
        Two-stacks sliding-window aggregation, Tangwongsan, Hirzel, Schneider, Wu, "General
        incremental sliding-window aggregation", VLDB 2015; moments merged after Chan, Golub and
        LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.

    >>> slide_moments(np.array([1.0, 3.0]), Bounds(np.array([0, 0]), np.array([0, 2]))).mean
    array([nan,  2.])
    """
    moments = Moments(*(np.empty(bounds.low.size) for _ in Moments._fields))
    slide_moments_into(values, *bounds, *moments)
    return moments


@njit(cache=True, nogil=True)
def count_matches(
    codes: Integers, low: Integers, high: Integers, query_codes: Integers, num_codes: int
) -> tuple[Floats, Floats]:
    """Return distinct and matching: ``slide_matches`` for code that is itself compiled."""
    held = np.zeros(num_codes, np.int64)
    distinct, matching = np.empty(low.size), np.empty(low.size)
    first = last = num_distinct = 0
    for query in range(low.size):
        while first < min(last, low[query]):
            held[codes[first]] -= 1
            num_distinct -= held[codes[first]] == 0
            first += 1
        if first < low[query]:  # a gap no window covers
            first = last = low[query]
        while last < high[query]:
            num_distinct += held[codes[last]] == 0
            held[codes[last]] += 1
            last += 1
        distinct[query] = num_distinct
        matching[query] = held[query_codes[query]] if query_codes[query] >= 0 else np.nan
    return distinct, matching


def slide_matches(
    codes: Integers, bounds: Bounds, query_codes: Integers, *, num_codes: int
) -> Matches:
    """Count different codes, and those equal to the query's own, in each window.

    Args:
        codes: One code per event, in ``[0, num_codes)``. Shape ``(events,)``.
        bounds: Windows from ``find_bounds``. Shape ``(queries,)``.
        query_codes: The code each query asks for, or -1 for none. Shape ``(queries,)``.
        num_codes: How many codes there are.

    Returns:
        Two counts per query, as floats; ``matching`` is NaN where the query asks for none.

    >>> bounds = Bounds(np.array([0, 0]), np.array([2, 3]))
    >>> slide_matches(np.array([0, 1, 1]), bounds, np.array([1, 1]), num_codes=2).matching
    array([1., 2.])
    """
    return Matches(*count_matches(codes, bounds.low, bounds.high, query_codes, num_codes))


def sum_windows(values: Integers, bounds: Bounds) -> Floats:
    """Sum whole numbers over each window; exact, since integers are added and subtracted.

    >>> sum_windows(np.array([2, 3, 4]), Bounds(np.array([0, 1]), np.array([1, 3]))).tolist()
    [2.0, 7.0]
    """
    running = np.concatenate((np.zeros(1, np.int64), np.cumsum(values)))
    return (running[bounds.high] - running[bounds.low]).astype(np.float64)


def count_windows(bounds: Bounds) -> Floats:
    """Count the events each window covers.

    >>> count_windows(Bounds(np.array([0, 1]), np.array([1, 3]))).tolist()
    [1.0, 2.0]
    """
    return (bounds.high - bounds.low).astype(np.float64)


def measure_seconds_since_last(
    event_times: Integers, query_times: Integers, bounds: Bounds
) -> Floats:
    """Measure seconds from the latest event in each window to its query; NaN where it is empty.

    >>> window = Bounds(np.array([0, 0]), np.array([0, 1]))
    >>> measure_seconds_since_last(np.array([0, 9]), np.array([0, 2_500_000]), window)
    array([nan, 2.5])
    """
    seconds = np.full(query_times.size, np.nan)
    covered = bounds.high > bounds.low
    latest = event_times[bounds.high[covered] - 1]
    seconds[covered] = (query_times[covered] - latest) / SECOND
    return seconds
