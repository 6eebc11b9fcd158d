"""Latencies become counts in the buckets of an HDR histogram, many at a time.

``HdrHistogram.record_value`` takes about 2 us of Python; here a batch is bucketed by numpy with the
same arithmetic and poured into a real ``HdrHistogram`` at the end. Values are microseconds, three
significant digits are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

MAX_LATENCY_US = 120_000_000
DIGITS = 3
SUB_BUCKET_BITS = 11  # 2048 >= 2 * 10**DIGITS
NUM_BUCKETS = int(HdrHistogram(1, MAX_LATENCY_US, DIGITS).counts_len)

Counts = npt.NDArray[np.int64]


def find_buckets(seconds: npt.NDArray[np.float64]) -> Counts:
    """Find the bucket of each duration.

    Args:
        seconds: Durations; those below 1 us or above 120 s count as that.

    Returns:
        Indices into an HDR histogram's counts.

    Source: Gil Tene, HdrHistogram, ``countsArrayIndex``: values of 11 bits have a bucket each, and
    with every further bit a bucket is twice as wide.

    >>> find_buckets(np.array([0.0, 5e-6, 2048e-6, 2049e-6, 2050e-6])).tolist()
    [1, 5, 2048, 2048, 2049]
    """
    values = np.clip(np.rint(seconds * 1e6), 1, MAX_LATENCY_US).astype(np.int64)
    _, bits = np.frexp(values)
    shift = np.maximum(bits - SUB_BUCKET_BITS, 0).astype(np.int64)
    buckets: Counts = (shift << (SUB_BUCKET_BITS - 1)) + (values >> shift)
    return buckets


def build_histogram(counts: Counts) -> HdrHistogram:
    """Pour counts by bucket into an HDR histogram of microseconds.

    Args:
        counts: ``(NUM_BUCKETS,)``.
    """
    assert counts.shape == (NUM_BUCKETS,), "counts of another histogram"
    histogram = HdrHistogram(1, MAX_LATENCY_US, DIGITS)
    np.frombuffer(histogram.counts, dtype=np.int64)[:] = counts
    filled = np.flatnonzero(counts)
    if filled.size:
        histogram.set_internal_tacking_values(int(filled[0]), int(filled[-1]), int(counts.sum()))
    return histogram


def read_counts(histogram: HdrHistogram) -> Counts:
    """Read the counts by bucket of a histogram that ``build_histogram`` made."""
    return np.frombuffer(histogram.counts, dtype=np.int64).copy()


def count_by_interval(
    starts: npt.NDArray[np.float64],
    durations: npt.NDArray[np.float64],
    *,
    into: Counts,
    interval_seconds: float,
) -> None:
    """Add durations to the counts of the interval in which each began.

    Args:
        starts: Seconds since the measurement began.
        durations: Seconds.
        into: ``(intervals, NUM_BUCKETS)``; what begins after the last interval goes to the last.
        interval_seconds: Length of an interval.
    """
    rows = np.clip((starts / interval_seconds).astype(np.int64), 0, len(into) - 1)
    np.add.at(into.reshape(-1), rows * NUM_BUCKETS + find_buckets(durations), 1)
