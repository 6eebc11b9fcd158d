"""States that many requests share become summaries: sorted times with running totals.

A shop's month may hold tens of thousands of payments, and every customer's request asks for their
mean. A summary answers in two binary searches instead of a pass over the events. Running totals are
kept in twice the precision, since what leaves a window may dwarf what stays in it.

Summaries are slices of one array of 8-byte words, so that compiled code needs no Python object:

====================  ==============================================================================
summary of            words
====================  ==============================================================================
labels                n, newest day, n days, n + 1 labels, n + 1 frauds
payments              n, newest event, newest tile, n times, n + 1 counts, 2 x (n + 1) sums
merchant              words of its labels, its labels, its payments
====================  ==============================================================================
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.fraud_state import LABEL_DAY, MERCHANT_EVENT, SLACK, unpack, unpack_tiles
from features.fraud_windows import RETENTION, RISK_WINDOW_DAYS, smooth_fraud_rate
from features.windows import DAY, Floats, Integers

NEVER = -(1 << 62)
"""Earlier than any event."""
_MONTH = RETENTION["merchant"]


def summarise_merchant(events: bytes | None, labels: bytes | None) -> Integers:
    """Turn both states of a merchant into one summary; ``None`` says that the store has none.

    Raises:
        ValueError: If the bytes are no state.
    """
    labelled = summarise_labels(labels)
    return np.concatenate(([labelled.size], labelled, summarise_payments(events)))


def summarise_payments(state: bytes | None) -> Integers:
    """Turn a merchant's events and tiles into a summary.

    Raises:
        ValueError: If the bytes are no state.
    """
    tiles, events = unpack_tiles(state), unpack(state, MERCHANT_EVENT)
    times = np.concatenate((tiles["event_time"], events["event_time"]))
    nums = np.concatenate((tiles["num"], np.ones(events.size, np.int64)))
    sums = np.concatenate((tiles["num"] * tiles["mean"], events["amount"]))
    newest = events["event_time"][-1] if events.size else NEVER
    frontier = tiles["event_time"][-1] if tiles.size else NEVER
    running, rests = _accumulate(sums)
    return np.concatenate(
        (
            np.array([times.size, newest, frontier], np.int64),
            times,
            np.append(0, np.cumsum(nums)),
            running.view(np.int64),
            rests.view(np.int64),
        )
    )


def summarise_labels(state: bytes | None) -> Integers:
    """Turn the labels that arrived day by day into a summary.

    Raises:
        ValueError: If the bytes are no state.
    """
    days = unpack(state, LABEL_DAY)
    newest = days["event_time"][-1] if days.size else NEVER
    return np.concatenate(
        (
            np.array([days.size, newest], np.int64),
            days["event_time"],
            np.append(0, np.cumsum(days["num_labels"])),
            np.append(0, np.cumsum(days["num_frauds"])),
        )
    )


@njit(nogil=True)
def read_mean_amount(summaries: Integers, start: int, time: int) -> float:
    """Average the payments of the 30 days before ``time``; NaN where there is none, or no telling.

    Args:
        summaries: Words.
        start: Where the merchant's summary begins in them.
        time: Microseconds.
    """
    num, newest, frontier = summaries[start], summaries[start + 1], summaries[start + 2]
    if newest - SLACK > time or (frontier != NEVER and time <= frontier):
        return np.nan
    times = summaries[start + 3 : start + 3 + num]
    counts = summaries[start + 3 + num :]
    sums = summaries[start + 4 + 2 * num :].view(np.float64)
    low = np.searchsorted(times, time - _MONTH)
    high = np.searchsorted(times, time)
    total = counts[high] - counts[low]
    if total == 0:
        return np.nan
    rests = num + 1
    return (sums[high] - sums[low] + (sums[rests + high] - sums[rests + low])) / total


@njit(nogil=True)
def read_fraud_rate(summaries: Integers, start: int, time: int) -> float:
    """Estimate a share of fraud from the labels of the whole days before ``time``.

    See ``features.fraud_windows.aggregate_label_days``; NaN where the request is too late to tell.
    """
    num, newest = summaries[start], summaries[start + 1]
    if newest - SLACK > time:
        return np.nan
    today = time - time % DAY
    days = summaries[start + 2 : start + 2 + num]
    labels = summaries[start + 2 + num :]
    frauds = summaries[start + 3 + 2 * num :]
    low = np.searchsorted(days, today - RISK_WINDOW_DAYS * DAY)
    high = np.searchsorted(days, today)
    return smooth_fraud_rate(float(frauds[high] - frauds[low]), float(labels[high] - labels[low]))


@njit(cache=True, nogil=True)
def _accumulate(values: Floats) -> tuple[Floats, Floats]:
    """Add up in twice the precision; the total of the first ``k`` is ``running[k] + rests[k]``.

    Source:
        TwoSum of Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
    """
    running, rests = np.zeros(values.size + 1), np.zeros(values.size + 1)
    for i in range(values.size):
        total = running[i] + values[i]
        part = total - running[i]
        running[i + 1] = total
        rests[i + 1] = rests[i] + ((running[i] - (total - part)) + (values[i] - part))
    return running, rests
