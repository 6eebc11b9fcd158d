"""Each entity's history up to a row becomes quantiles of its values, and runs of known frauds.

What windows cannot say: an order statistic over everything so far, and what the latest labels known
say about the present. Rows stand entity by entity in time order (``features.windows``); row ``i``
sees the rows ``[start of its entity, high[i])`` and nothing later. ``high`` never decreases within
an entity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from features.windows import DAY, Floats, Integers


class FraudRuns(NamedTuple):
    """The frauds known without a legitimate transaction after them; shapes ``(rows,)``.

    Attributes:
        length: How many frauds the run holds; 0 where the latest label known is legitimate.
        days_since_start: Calendar days from the run's first fraud; NaN where there is no run.
        days_since_legitimate: Calendar days from the last legitimate transaction before the run;
            NaN where there is no run or none came before it.
    """

    length: Floats
    days_since_start: Floats
    days_since_legitimate: Floats


@njit(cache=True, nogil=True)
def _find_past_quantiles(
    values: Floats, starts: Integers, high: Integers, shares: Floats
) -> Floats:
    quantiles = np.full((values.size, shares.size), np.nan)
    ordered = np.empty(values.size)
    for group in range(starts.size - 1):
        num, last = 0, starts[group]
        for row in range(starts[group], starts[group + 1]):
            while last < high[row]:
                place = np.searchsorted(ordered[:num], values[last])
                for i in range(num, place, -1):
                    ordered[i] = ordered[i - 1]
                ordered[place] = values[last]
                num += 1
                last += 1
            if num > 0:
                for column in range(shares.size):
                    position = (num - 1) * shares[column]
                    below = int(position)
                    above = min(below + 1, num - 1)
                    step = ordered[above] - ordered[below]
                    quantiles[row, column] = ordered[below] + (position - below) * step
    return quantiles


def find_past_quantiles(
    values: Floats, starts: Integers, high: Integers, *, shares: tuple[float, ...]
) -> Floats:
    """Find quantiles of everything each row may see of its entity.

    Args:
        values: One finite number per row. Shape ``(rows,)``.
        starts: Group borders. Shape ``(groups + 1,)``.
        high: End of the rows each row sees. Shape ``(rows,)``.
        shares: Which quantiles, in [0, 1]; between two values, linear, as ``np.quantile``.

    Returns:
        Shape ``(rows, shares)``; NaN where a row sees nothing.

    >>> past, one_group = np.array([0, 1, 2]), np.array([0, 3])
    >>> find_past_quantiles(np.array([4.0, 8.0, 1.0]), one_group, past, shares=(0.5,)).ravel()
    array([nan,  4.,  6.])
    """
    return np.asarray(_find_past_quantiles(values, starts, high, np.array(shares)))


@njit(cache=True, nogil=True)
def _trace_fraud_runs(
    times: Integers, is_fraud: Integers, starts: Integers, high: Integers
) -> tuple[Floats, Floats, Floats]:
    length = np.zeros(times.size)
    since_start, since_legitimate = np.full(times.size, np.nan), np.full(times.size, np.nan)
    for group in range(starts.size - 1):
        num, last = 0, starts[group]
        first_fraud, legitimate = 0, -1
        for row in range(starts[group], starts[group + 1]):
            while last < high[row]:
                if is_fraud[last] == 0:
                    num, legitimate = 0, times[last] // DAY
                elif is_fraud[last] > 0:
                    first_fraud = times[last] // DAY if num == 0 else first_fraud
                    num += 1
                last += 1
            length[row] = num
            if num > 0:
                since_start[row] = times[row] // DAY - first_fraud
                if legitimate >= 0:
                    since_legitimate[row] = times[row] // DAY - legitimate
    return length, since_start, since_legitimate


def trace_fraud_runs(
    times: Integers, is_fraud: Integers, starts: Integers, high: Integers
) -> FraudRuns:
    """Follow, at each row, the run of frauds that the labels known by then end with.

    Args:
        times: Microseconds, ascending within each group. Shape ``(rows,)``.
        is_fraud: 1 for a fraud, 0 for a legitimate transaction, -1 for one that neither counts nor
            ends a run. Shape ``(rows,)``.
        starts: Group borders. Shape ``(groups + 1,)``.
        high: End of the rows whose label each row knows. Shape ``(rows,)``.

    >>> days, knows = np.arange(4) * DAY, np.array([0, 0, 1, 2])
    >>> runs = trace_fraud_runs(days, np.array([0, 1, 1, 0]), np.array([0, 4]), knows)
    >>> [column[3].item() for column in runs]
    [1.0, 2.0, 3.0]
    """
    return FraudRuns(*_trace_fraud_runs(times, is_fraud, starts, high))
