"""Summaries that requests under way were promised stay as they are, whatever is put or thrown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import shared_summaries
from features.fraud_state import MERCHANT_EVENT, pack
from features.row_requests import RowRequests
from features.shared_summaries import SharedSummaries, SummariesLostError
from features.state_summaries import summarise_merchants
from features.summary_arena import UNREADABLE_PLACE, SummaryArena

entities = st.sampled_from(["m1", "m2", "m3"])
sizes = st.sampled_from([0, 1, 3, 9_000, 30_000])  # the large ones make the arena move
steps = st.lists(
    st.tuples(st.just("put"), st.dictionaries(entities, sizes, min_size=1))
    | st.tuples(st.just("remove"), entities)
    | st.tuples(st.just("clear")),
    max_size=25,
)


@settings(deadline=None)
@given(steps, st.integers(1, 50_000))
def test_an_arena_holds_what_was_put_last_and_words_handed_out_never_change(steps, capacity):
    arena, wanted, handed_out = SummaryArena(capacity=capacity), {}, []
    for number, (action, *arguments) in enumerate(steps):
        if action == "put":
            put = {
                entity: np.arange(size) * 1000 + number * 10 + at
                for at, (entity, size) in enumerate(arguments[0].items())
            }
            ends = np.cumsum([summary.size for summary in put.values()])
            arena.put_many(list(put), np.concatenate(list(put.values())), ends)
            wanted |= put
        elif action == "remove":
            wanted.pop(arguments[0], None)
            arena.remove(arguments[0])
        else:
            wanted.clear()
            arena.clear()
        handed_out.append((arena.words, dict(arena.places), dict(wanted)))
    for words, places, expected in handed_out:
        assert places.keys() == expected.keys()
        for entity, (begin, size) in places.items():
            if not expected[entity].size:
                assert begin == UNREADABLE_PLACE
            else:
                np.testing.assert_array_equal(words[begin : begin + size], expected[entity])


def test_an_arena_that_is_written_over_and_over_does_not_grow():
    arena = SummaryArena()
    for number in range(500):
        arena.put_many(["m1"], np.full(10_000, number), np.array([10_000]))
    assert arena.words.size <= 1 << 16


def payments(amount):
    events = np.zeros(1, MERCHANT_EVENT)
    events["amount"] = amount
    return pack(events)


def find_words(located, row):
    begin = located.places[row, 0]
    return located.merchants[begin:]


def test_what_is_missing_is_named_once_and_nothing_for_nobody():
    summaries = SharedSummaries()
    missing = summaries.list_missing(["m1", None, "m1", "m2", ""], [None, "food"])
    assert (sorted(missing[0]), missing[1]) == (["m1", "m2"], ["food"])


def test_a_summary_is_found_again_and_not_missing_until_it_is_outdated():
    summaries = SharedSummaries()
    summaries.put_merchants(["m1"], [payments(7.0)], [None])
    summaries.put_category("food", None)
    assert summaries.list_missing(["m1"], ["food"]) == ([], [])
    summaries.mark_merchant_outdated("m1")
    summaries.mark_category_outdated("food")
    assert summaries.list_missing(["m1"], ["food"]) == (["m1"], ["food"])
    expected, _ = summarise_merchants([payments(7.0)], [None])
    located = summaries.locate(["m1"], ["food"])  # outdated, and still readable
    np.testing.assert_array_equal(find_words(located, 0)[: expected.size], expected)


def test_when_all_is_outdated_all_is_missing_and_can_still_be_read():
    summaries = SharedSummaries()
    summaries.put_merchants(["m1"], [payments(7.0)], [None])
    summaries.put_category("food", None)
    summaries.mark_all_outdated()
    assert summaries.list_missing(["m1"], ["food"]) == (["m1"], ["food"])
    expected, _ = summarise_merchants([payments(7.0)], [None])
    located = summaries.locate(["m1"], ["food"])
    np.testing.assert_array_equal(find_words(located, 0)[: expected.size], expected)


@pytest.mark.parametrize(
    "state",
    [
        b"of a later release",
        pack(b"\0" * 8),  # a part of an event
        *(  # so many tiles, and five words
            b"TLSTATE2" + np.array([num, 0, 0, 0, 0, 0]).tobytes()
            for num in (-1, 2, 2**62, -(2**63))
        ),
    ],
)
def test_bytes_that_are_no_state_have_a_place_that_says_so_until_others_come(state):
    summaries = SharedSummaries()
    for place in (UNREADABLE_PLACE, 0):
        bytes_ = state if place else None
        summaries.put_merchants(["m1", "m2", "m3"], [bytes_, None, None], [None, bytes_, None])
        summaries.put_category("food", state if place else None)
        assert summaries.list_missing(["m1", "m2", "m3"], ["food"]) == ([], [])
        places = summaries.locate(["m1", "m2", "m3"], ["food", None, None]).places
        assert (places[0] == UNREADABLE_PLACE).tolist() == [bool(place)] * 2
        assert (places[1] == UNREADABLE_PLACE).tolist() == [bool(place), False]
        assert (places[2] == UNREADABLE_PLACE).tolist() == [False, False]


def test_a_change_that_is_told_of_after_the_reading_is_not_forgotten_by_it():
    summaries = SharedSummaries()
    summaries.put_merchants(["m1"], [None], [None])
    summaries.mark_merchant_outdated("m1")
    assert summaries.list_missing(["m1"], [])[0] == ["m1"]
    summaries.put_merchants(["m1"], [None], [None])
    summaries.mark_merchant_outdated("m1")
    assert summaries.list_missing(["m1"], [])[0] == ["m1"]


def test_a_merchant_and_a_category_of_one_name_are_two():
    summaries = SharedSummaries()
    summaries.put_merchants(["food"], [None], [None])
    assert summaries.list_missing(["food"], ["food"]) == ([], ["food"])


def test_nobody_has_no_place_and_the_unknown_is_asked_for_again():
    summaries = SharedSummaries()
    assert summaries.locate([None, ""], ["", None]).places.tolist() == [[-1, -1]] * 2
    with pytest.raises(SummariesLostError):
        summaries.locate(["m1"], [None])


def test_a_row_has_its_summaries_if_both_are_at_hand_or_not_asked_for():
    summaries = SharedSummaries()
    summaries.put_merchants(["m1"], [None], [None])
    merchants, categories = ["m1", "m1", "m2", None], [None, "food", None, None]
    none = np.zeros((4, 0))
    requests = RowRequests(["c"] * 4, [None] * 4, merchants, categories, none, none)
    assert [summaries.has(requests, row) for row in range(4)] == [True, False, False, True]


def test_more_entities_than_are_kept_are_all_forgotten(monkeypatch):
    monkeypatch.setattr(shared_summaries, "MAX_ENTITIES", 2)
    summaries = SharedSummaries()
    for merchant in ("m1", "m2", "m3"):
        summaries.put_merchants([merchant], [None], [None])
    assert sorted(summaries.list_missing(["m1", "m3"], [])[0]) == ["m1", "m3"]


def test_a_merchant_that_keeps_changing_is_read_again_once_per_refresh():
    now = [0.0]
    summaries = SharedSummaries(refresh_seconds=0.5, clock=lambda: now[0])
    num_reads = 0
    for tick in range(100):  # ten seconds
        now[0] = tick / 10
        summaries.mark_merchant_outdated("m1")
        for merchant in summaries.list_missing(["m1"], [])[0]:
            summaries.put_merchants([merchant], [None], [None])
            num_reads += 1
    assert num_reads == 20


def test_a_merchant_never_read_and_all_after_a_lost_link_do_not_wait_for_the_refresh():
    summaries = SharedSummaries(refresh_seconds=1e9, clock=lambda: 0.0)
    summaries.put_merchants(["m1"], [None], [None])
    summaries.mark_merchant_outdated("m1")
    summaries.list_missing([], [])
    assert summaries.list_missing(["m2"], [])[0] == ["m2"]
    summaries.mark_all_outdated()
    assert summaries.list_missing(["m1"], [])[0] == ["m1"]
