"""The window kernel against brute force, by hand-checked edges and random streams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.windows import (
    SECOND,
    Bounds,
    find_bounds,
    group_rows,
    measure_seconds_since_last,
    slide_matches,
    slide_moments,
    sum_windows,
)


def bounds_of_one_entity(times, *, length):
    times = np.array(times, dtype=np.int64)
    starts = np.array([0, times.size])
    return find_bounds(times, starts, times, starts, length=length)


def test_the_current_event_is_outside_its_own_window():
    bounds = bounds_of_one_entity([10, 20], length=100)
    assert (bounds.high - bounds.low).tolist() == [0, 1]


def test_events_at_the_same_instant_do_not_see_each_other():
    bounds = bounds_of_one_entity([10, 20, 20, 20], length=100)
    assert (bounds.high - bounds.low).tolist() == [0, 1, 1, 1]


def test_an_event_exactly_one_window_ago_counts_and_one_microsecond_more_does_not():
    bounds = bounds_of_one_entity([0, 1, 101], length=100)
    assert bounds.low[2] == 1
    bounds = bounds_of_one_entity([0, 1, 102], length=100)
    assert bounds.low[2] == 2


def test_one_entity_never_sees_another():
    times, starts = np.array([1, 2, 1, 2]), np.array([0, 2, 4])
    bounds = find_bounds(times, starts, times, starts, length=100)
    assert bounds.low.tolist() == [0, 0, 2, 2]
    assert bounds.high.tolist() == [0, 1, 2, 3]


def test_an_entity_without_events_has_empty_windows():
    bounds = find_bounds(
        np.array([5]), np.array([0, 1, 1]), np.array([6, 6]), np.array([0, 1, 2]), length=9
    )
    assert (bounds.high - bounds.low).tolist() == [1, 0]


def test_equal_values_have_no_deviation_however_long_the_history():
    times = np.arange(1000)
    bounds = bounds_of_one_entity(times, length=7)
    moments = slide_moments(np.full(1000, 0.1), bounds)
    assert moments.std[1:].max() == 0.0


def test_a_large_value_leaves_no_trace_after_it_left_the_window():
    values = np.array([1e15, 0.1, 0.2, 0.3])
    moments = slide_moments(values, Bounds(np.array([0, 1]), np.array([1, 4])))
    assert abs(moments.mean[1] - 0.2) < 1e-15


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40),
    st.booleans(),
)
def test_rows_are_ordered_by_entity_and_time_and_then_as_they_came(rows, is_in_time_order):
    if is_in_time_order:
        rows = sorted(rows, key=lambda row: row[1])
    entities, times = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    grouping = group_rows(entities, times, num_entities=5)
    assert grouping.order.tolist() == sorted(range(len(rows)), key=lambda i: rows[i])
    assert np.diff(grouping.starts).tolist() == [
        sum(row[0] == entity for row in rows) for entity in range(5)
    ]


def test_a_code_that_stands_for_no_entity_is_refused():
    with pytest.raises(ValueError, match="negative"):
        group_rows(np.array([0, -1]), np.array([1, 2]), num_entities=1)


def test_seconds_since_last_is_unknown_for_a_first_event():
    times = np.array([0, 3 * SECOND])
    seconds = measure_seconds_since_last(times, times, bounds_of_one_entity(times, length=10**9))
    assert np.isnan(seconds[0])
    assert seconds[1] == 3.0


def test_a_query_that_asks_for_no_code_gets_an_unknown_count():
    matches = slide_matches(
        np.array([0, 1]), Bounds(np.array([0]), np.array([2])), np.array([-1]), num_codes=2
    )
    assert np.isnan(matches.matching[0])
    assert matches.distinct[0] == 2


events = st.lists(
    st.tuples(
        st.integers(0, 3),  # entity
        st.integers(0, 60),  # time: small, so that ties and window edges are common
        st.floats(-1e6, 1e6).map(lambda value: round(value, 2)),
        st.integers(0, 4),  # code
    ),
    max_size=60,
)


@given(events, st.integers(1, 30))
def test_every_aggregate_equals_brute_force_on_random_streams(rows, length):
    entities, times, values, codes = (
        np.array([row[i] for row in rows], dtype=kind)
        for i, kind in enumerate((np.int64, np.int64, np.float64, np.int64))
    )
    order, starts = group_rows(entities, times, num_entities=4)
    entities, times, values, codes = (column[order] for column in (entities, times, values, codes))
    bounds = find_bounds(times, starts, times, starts, length=length)
    moments = slide_moments(values, bounds)
    matches = slide_matches(codes, bounds, codes, num_codes=5)
    sums = sum_windows(codes, bounds)
    for i in range(len(rows)):
        inside = (
            (entities == entities[i]) & (times < times[i]) & (times >= times[i] - length)
        ).nonzero()[0]
        assert bounds.high[i] - bounds.low[i] == inside.size
        assert matches.distinct[i] == np.unique(codes[inside]).size
        assert matches.matching[i] == (codes[inside] == codes[i]).sum()
        assert sums[i] == codes[inside].sum()
        if inside.size == 0:
            assert np.isnan([moments.mean[i], moments.std[i], moments.max[i]]).all()
        else:
            scale = 1e-12 * max(1.0, np.abs(values[inside]).max())
            assert abs(moments.mean[i] - values[inside].mean()) <= scale
            assert abs(moments.std[i] - values[inside].std()) <= 1e-7 * scale / 1e-12
            assert moments.max[i] == values[inside].max()
