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

from collections.abc import Sequence

import numpy as np
from numba import njit

from features.fraud_state import LABEL_DAY, MAGIC, MERCHANT_EVENT, SLACK, find_records, pack
from features.fraud_windows import RETENTION, RISK_WINDOW_DAYS, smooth_fraud_rate
from features.tiles import TILE
from features.windows import DAY, Floats, Integers

NEVER = -(1 << 62)
"""Earlier than any event."""
_MONTH = RETENTION["merchant"]
_NOTHING = pack(b"")
_MAGIC = int.from_bytes(MAGIC, "little", signed=True)
_HEADER_WORDS = len(_NOTHING) // 8
_TILE_WORDS, _EVENT_WORDS, _DAY_WORDS = (
    dtype.itemsize // 8 for dtype in (TILE, MERCHANT_EVENT, LABEL_DAY)
)


def summarise_merchants(
    events: Sequence[bytes | None], labels: Sequence[bytes | None]
) -> tuple[Integers, Integers]:
    """Turn both states of each merchant into one summary; ``None`` says that the store has none.

    Behind a stream merchants are summarised all the time; all of a batch's are in one compiled
    pass, since a call for each costs several times the pass itself.

    Returns:
        The summaries one after the other, and where each ends in them; one is empty if bytes of
        its merchant are no state. Shape ``(merchants,)``.
    """
    states = [_check_words(state) for pair in zip(labels, events, strict=True) for state in pair]
    ends = np.cumsum(np.fromiter(map(len, states), np.int64, len(states)) // 8)
    return _summarise_merchants(np.frombuffer(b"".join(states), np.int64), ends)


def _check_words(state: bytes | None) -> bytes:
    """Return a state that is made of whole words, whatever they say."""
    if state is None:
        return _NOTHING
    return b"" if len(state) % 8 else state


def summarise_payments(state: bytes | None) -> Integers:
    """Turn a merchant's events and tiles into a summary.

    Raises:
        ValueError: If the bytes are no state.
    """
    return _summarise_payments(*_read_words(state, MERCHANT_EVENT))


def summarise_labels(state: bytes | None) -> Integers:
    """Turn the labels that arrived day by day into a summary.

    Raises:
        ValueError: If the bytes are no state.
    """
    return _summarise_labels(*_read_words(state, LABEL_DAY))


def _read_words(state: bytes | None, dtype: np.dtype) -> tuple[Integers, int]:
    """Look at a state as words, and find the first one of its records."""
    state = _NOTHING if state is None else state
    first = find_records(state, dtype) // 8
    return np.frombuffer(state, np.int64), first


@njit(cache=True, nogil=True)
def _summarise_merchants(words: Integers, ends: Integers) -> tuple[Integers, Integers]:
    """Summarise merchants, of whom each has two states in ``words``: its labels, its events."""
    num, size = len(ends) // 2, 0
    firsts, summary_ends = np.empty((num, 2), np.int64), np.empty(num, np.int64)
    for merchant in range(num):
        begin = ends[2 * merchant - 1] if merchant else 0
        middle, end = ends[2 * merchant], ends[2 * merchant + 1]
        firsts[merchant, 0] = _find_first(words[begin:middle], _DAY_WORDS)
        firsts[merchant, 1] = _find_first(words[middle:end], _EVENT_WORDS)
        if firsts[merchant].min() >= 0:
            days = (middle - begin - firsts[merchant, 0]) // _DAY_WORDS
            tiles = (firsts[merchant, 1] - _HEADER_WORDS) // _TILE_WORDS
            payments = tiles + (end - middle - firsts[merchant, 1]) // _EVENT_WORDS
            size += 1 + (4 + 3 * days) + (6 + 4 * payments)
        summary_ends[merchant] = size
    summaries = np.empty(size, np.int64)
    for merchant in range(num):
        if firsts[merchant].min() >= 0:
            begin = ends[2 * merchant - 1] if merchant else 0
            middle, end = ends[2 * merchant], ends[2 * merchant + 1]
            labels = _summarise_labels(words[begin:middle], firsts[merchant, 0])
            payments_summary = _summarise_payments(words[middle:end], firsts[merchant, 1])
            at = summary_ends[merchant] - payments_summary.size
            summaries[at : summary_ends[merchant]] = payments_summary
            summaries[at - labels.size : at] = labels
            summaries[at - labels.size - 1] = labels.size
    return summaries, summary_ends


@njit(nogil=True)
def _find_first(words: Integers, width: int) -> int:
    """Find the first word of a state's records of ``width`` words; -1 if it is no state.

    As ``features.fraud_state.find_records``.
    """
    if words.size < _HEADER_WORDS or words[0] != _MAGIC:
        return -1
    rest = words.size - _HEADER_WORDS
    if not 0 <= words[1] <= rest // _TILE_WORDS:
        return -1
    rest -= words[1] * _TILE_WORDS
    return -1 if rest % width else words.size - rest


@njit(cache=True, nogil=True)
def _summarise_labels(words: Integers, first: int) -> Integers:
    days = words[first:].reshape(-1, _DAY_WORDS)
    num = len(days)
    summary = np.zeros(2 + num + 2 * (num + 1), np.int64)
    labels, frauds = summary[2 + num :], summary[3 + 2 * num :]
    summary[0], summary[1] = num, days[-1, 0] if num else NEVER
    for day in range(num):
        summary[2 + day] = days[day, 0]
        labels[day + 1] = labels[day] + days[day, 1]
        frauds[day + 1] = frauds[day] + days[day, 2]
    return summary


@njit(cache=True, nogil=True)
def _summarise_payments(words: Integers, first: int) -> Integers:
    tiles = words[_HEADER_WORDS:first].reshape(-1, _TILE_WORDS)
    events = words[first:].reshape(-1, _EVENT_WORDS)
    means, amounts = tiles.view(np.float64), events.view(np.float64)
    num_tiles, num = len(tiles), len(tiles) + len(events)
    summary = np.zeros(3 + num + 3 * (num + 1), np.int64)
    times, counts = summary[3 : 3 + num], summary[3 + num : 4 + 2 * num]
    running, rests = summary[4 + 2 * num :].view(np.float64).reshape(2, num + 1)
    summary[0] = num
    summary[1] = events[-1, 0] if num > num_tiles else NEVER
    summary[2] = tiles[-1, 0] if num_tiles else NEVER
    for tile in range(num_tiles):
        times[tile], counts[tile + 1] = tiles[tile, 0], counts[tile] + tiles[tile, 1]
        _add(running, rests, tile, tiles[tile, 1] * means[tile, 2])
    for event in range(num - num_tiles):
        at = num_tiles + event
        times[at], counts[at + 1] = events[event, 0], counts[at] + 1
        _add(running, rests, at, amounts[event, 2])
    return summary


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


@njit(nogil=True)
def _add(running: Floats, rests: Floats, at: int, value: float) -> None:
    """Add up in twice the precision; the total of the first ``k`` is ``running[k] + rests[k]``.

    Source:
        TwoSum of Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
    """
    total = running[at] + value
    part = total - running[at]
    running[at + 1] = total
    rests[at + 1] = rests[at] + ((running[at] - (total - part)) + (value - part))
