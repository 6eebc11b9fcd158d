"""Tiles answer as the events they hold would, to the rule of the hour, or refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.fraud_online import compute_online
from features.fraud_state import (
    CUSTOMER_EVENT,
    MERCHANT_EVENT,
    EventState,
    count_tiles,
    pack,
    unpack,
    unpack_tiles,
)
from features.state_merge import ADDED, BEYOND_TILES, DUPLICATE, merge_states
from features.tiles import TILE, add_tiled_moments, append_tiles, count_tiled
from features.windows import DAY, HOUR, Moments

EMPTY = np.empty(0, TILE)
payments = st.lists(
    st.tuples(
        st.integers(0, 40 * 2).map(lambda halves: halves * HOUR // 2 + halves % 3),
        st.sampled_from([0.0, 0.01, 7.5, 20.0, 1_000.0]),
    ),
    max_size=40,
).map(sorted)


def split(rows):
    times = np.array([time for time, _ in rows], dtype=np.int64)
    return times, np.array([amount for _, amount in rows], dtype=np.float64)


def pick_covered(times, *, now, length):
    """The rule: an event counts as long as the latest of its hour, and strictly before now."""
    hours = times // HOUR
    latest = np.array([times[hours == hour].max() for hour in hours], dtype=np.int64)
    return (latest >= now - length) & (latest < now)


@settings(deadline=None)  # the first call compiles
@given(rows=payments, later=st.integers(1, 30 * HOUR), length=st.sampled_from([HOUR, DAY]))
def test_tiles_answer_as_their_events_would_by_the_rule_of_the_hour(rows, later, length):
    times, amounts = split(rows)
    tiles = append_tiles(EMPTY, times, amounts)
    now = int(times.max(initial=0)) + later
    covered = amounts[pick_covered(times, now=now, length=length)] if rows else amounts
    asked, none = np.array([now]), np.full(1, np.nan)
    found = add_tiled_moments(np.zeros(1), Moments(none, none, none), [tiles], asked, length=length)
    assert count_tiled([tiles], asked, length=length)[0] == covered.size
    expected = [np.nan] * 3
    if covered.size:
        expected = [covered.mean(), covered.std(), covered.max()]
    np.testing.assert_allclose([moment[0] for moment in found], expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(rows=payments, cut=st.integers(0, 40))
def test_tiles_made_bit_by_bit_are_those_made_at_once(rows, cut):
    times, amounts = split(rows)
    at_once = append_tiles(EMPTY, times, amounts)
    first = append_tiles(EMPTY, times[:cut], amounts[:cut])
    in_two = append_tiles(first, times[cut:], amounts[cut:])
    for name in TILE.names:
        np.testing.assert_allclose(in_two[name], at_once[name], rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(rows=payments, tiled=st.integers(0, 40))
def test_events_beside_tiles_count_together(rows, tiled):
    times, amounts = split(rows)
    now, length = int(times.max(initial=0)) + 1, 100 * HOUR
    rest = amounts[tiled:]
    one_by_one = Moments(
        *(np.array([moment(rest) if rest.size else np.nan]) for moment in (np.mean, np.std, np.max))
    )
    tiles = append_tiles(EMPTY, times[:tiled], amounts[:tiled])
    found = add_tiled_moments(
        np.array([float(rest.size)]), one_by_one, [tiles], np.array([now]), length=length
    )
    expected = [amounts.mean(), amounts.std(), amounts.max()] if rows else [np.nan] * 3
    np.testing.assert_allclose([moment[0] for moment in found], expected, rtol=1e-9, atol=1e-9)


def test_events_without_amounts_are_counted():
    tiles = append_tiles(EMPTY, np.array([0, 1, HOUR]), None)
    assert tiles["num"].tolist() == [2, 1]
    assert count_tiled([tiles], np.array([2 * HOUR]), length=HOUR)[0] == 1


KIND = EventState("merchant_id", MERCHANT_EVENT, 7 * DAY, 3)


def payments_at(*times, first_id=1):
    rows = [(time, first_id + number, 10.0 + number) for number, time in enumerate(times)]
    return np.array(rows, dtype=MERCHANT_EVENT)


def merge(state, events):
    return merge_states([state], events, np.zeros(events.size, np.int64), kind=KIND)


def test_over_the_cap_the_oldest_events_become_tiles_and_none_is_lost():
    state = merge(None, payments_at(0, 10, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR)).states[0]
    assert unpack(state, MERCHANT_EVENT)["event_time"].tolist() == [2 * HOUR, 3 * HOUR, 4 * HOUR]
    assert unpack_tiles(state)["num"].tolist() == [2, 1]
    assert unpack_tiles(state)["event_time"].tolist() == [10, HOUR]


def test_at_the_cap_nothing_is_tiled():
    assert count_tiles(merge(None, payments_at(0, 1, 2)).states[0]) == 0


def test_events_of_one_instant_stay_together_at_the_cut():
    state = merge(None, payments_at(0, 5, 5, 5, 9)).states[0]
    assert unpack_tiles(state)["num"].tolist() == [4]
    assert unpack(state, MERCHANT_EVENT)["event_time"].tolist() == [9]


def test_events_not_later_than_the_newest_tile_are_refused_and_counted():
    state = merge(None, payments_at(0, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR)).states[0]
    again = merge(state, payments_at(30, HOUR, HOUR + 1, first_id=100))
    assert again.outcomes.tolist() == [BEYOND_TILES, BEYOND_TILES, ADDED]
    tiled = int(unpack_tiles(again.states[0])["num"].sum())
    assert tiled + unpack(again.states[0], MERCHANT_EVENT).size == 6


def test_what_is_told_again_after_it_was_tiled_changes_nothing():
    told = payments_at(0, 10, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR)
    state = merge(None, told).states[0]
    again = merge(state, told)
    assert again.states[0] == state
    assert set(again.outcomes[:3].tolist()) <= {BEYOND_TILES, DUPLICATE}
    assert again.outcomes[3:].tolist() == [DUPLICATE] * 3


def test_tiles_that_no_window_can_reach_any_more_are_dropped():
    state = merge(None, payments_at(0, 1, 2, 3)).states[0]
    assert count_tiles(state) == 1
    reach = KIND.retention + DAY
    # Each new event moves another old one into the tile, whose time is then 1.
    assert count_tiles(merge(state, payments_at(reach + 1, first_id=50)).states[0]) == 1
    assert count_tiles(merge(state, payments_at(reach + 2, first_id=50)).states[0]) == 0


def test_a_customers_counts_and_amounts_are_whole_when_most_events_are_tiled():
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 20 * DAY, 300))
    now = 20 * DAY + 1
    events = np.zeros(times.size, CUSTOMER_EVENT)
    events["event_time"], events["transaction"] = times, np.arange(1, times.size + 1)
    events["amount"] = rng.gamma(2, 30, times.size)
    kind = EventState("customer_id", CUSTOMER_EVENT, 30 * DAY, 20)
    tiled = merge_states([None], events, np.zeros(times.size, np.int64), kind=kind).states[0]
    request = {"amount": np.array([50.0]), "event_time_us": np.array([now])}
    found = compute_online({"customer_events": [tiled]}, request)
    exact = compute_online({"customer_events": [pack(events)]}, request)
    assert count_tiles(tiled) > 100
    for name in ("customer_amount_mean_30d", "customer_amount_max_30d",
                 "customer_amount_zscore_30d", "customer_tx_count_1h"):  # fmt: skip
        assert found[name][0] == pytest.approx(exact[name][0], rel=1e-9), name
    for name, days in (("customer_tx_count_24h", 1), ("customer_tx_count_7d", 7)):
        an_hour_more = int((times >= now - days * DAY - HOUR).sum())
        assert exact[name][0] <= found[name][0] <= an_hour_more
