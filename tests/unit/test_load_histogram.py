from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from serving.load_histogram import (
    MAX_LATENCY_US,
    NUM_BUCKETS,
    build_histogram,
    count_by_interval,
    find_buckets,
    read_counts,
)


@given(st.lists(st.integers(1, MAX_LATENCY_US), min_size=1, max_size=200))
def test_buckets_and_percentiles_are_those_of_hdr_histogram_itself(microseconds):
    oracle = HdrHistogram(1, MAX_LATENCY_US, 3)
    for value in microseconds:
        assert oracle.record_value(value)
    counts = np.bincount(find_buckets(np.array(microseconds) / 1e6), minlength=NUM_BUCKETS)
    ours = build_histogram(counts)
    assert read_counts(ours).tolist() == list(oracle.counts)
    for percentile in (0.0, 50.0, 99.0, 100.0):
        assert ours.get_value_at_percentile(percentile) == oracle.get_value_at_percentile(
            percentile
        )
    assert ours.get_total_count() == len(microseconds)
    assert ours.get_max_value() == oracle.get_max_value()


def test_histograms_of_several_processes_add_up():
    first, second = (
        build_histogram(np.bincount(find_buckets(np.array(values)), minlength=NUM_BUCKETS))
        for values in ([0.001, 0.002], [0.003])
    )
    first.add(second)
    assert first.get_total_count() == 3
    assert first.get_value_at_percentile(100.0) == 3001  # 3000 and 3001 us share a bucket


def test_no_latency_falls_outside():
    buckets = find_buckets(np.array([-1.0, 0.0, 1e9]))
    assert buckets.tolist() == [1, 1, find_buckets(np.array([MAX_LATENCY_US / 1e6]))[0]]


def test_a_latency_counts_in_the_interval_in_which_it_began():
    counts = np.zeros((3, NUM_BUCKETS), np.int64)
    starts, durations = np.array([0.1, 0.9, 1.0, 2.5, 9.0]), np.array([5.0, 1e-6, 1e-6, 1e-6, 1e-6])
    count_by_interval(starts, durations, into=counts, interval_seconds=1.0)
    assert counts.sum(axis=1).tolist() == [2, 1, 2]
    assert counts[:, 1].tolist() == [1, 1, 2]


def test_an_empty_histogram_has_no_latency():
    histogram = build_histogram(np.zeros(NUM_BUCKETS, np.int64))
    assert histogram.get_total_count() == 0
    assert histogram.get_value_at_percentile(99.0) == 0
