"""An entity's state: idempotent, independent of order, bounded, and honest about what it lost."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.fraud_online import compute_online
from features.fraud_state import (
    CUSTOMER_EVENT,
    EVENT_STATES,
    MERCHANT_EVENT,
    SLACK,
    EventState,
    encode_id,
    encode_ids,
    make_events,
    pack,
    unpack,
)
from features.state_merge import ADDED, DUPLICATE, merge_states
from features.windows import DAY, HOUR


def events(*rows):
    return np.array([(time, code, amount) for time, code, amount in rows], dtype=MERCHANT_EVENT)


def merge(state, new, max_events=100):
    """Add events to one entity's state, with a longest window of a day."""
    kind = EventState("merchant_id", MERCHANT_EVENT, DAY, max_events)
    return merge_states([state], new, np.zeros(new.size, np.int64), kind=kind)


def test_an_event_twice_changes_nothing_and_is_counted():
    once = merge(None, events((5, 1, 10.0))).states[0]
    again = merge(once, events((5, 1, 10.0), (5, 1, 10.0)))
    assert again.states[0] == once
    assert again.outcomes.tolist() == [DUPLICATE, DUPLICATE]


def test_a_transaction_told_again_with_another_time_or_amount_changes_nothing():
    once = merge(None, events((5, 1, 10.0)))
    assert merge(once.states[0], events((7, 1, 99.0))).states == once.states


def test_of_a_transaction_twice_among_the_new_ones_the_first_counts():
    merged = merge(None, events((5, 1, 10.0), (6, 1, 99.0)))
    assert unpack(merged.states[0], MERCHANT_EVENT)["amount"].tolist() == [10.0]
    assert merged.outcomes.tolist() == [ADDED, DUPLICATE]


def test_events_out_of_order_end_in_the_same_state():
    first, second, third = events((5, 1, 1.0)), events((7, 2, 2.0)), events((6, 3, 3.0))
    in_order = merge(None, np.concatenate((first, third, second))).states[0]
    state = None
    for event in (second, first, third):
        state = merge(state, event).states[0]
    assert state == in_order


def test_a_state_keeps_the_longest_window_and_the_slack_and_no_more():
    old = events((0, 1, 1.0), (1, 2, 1.0), (DAY + SLACK + 1, 3, 1.0))
    kept = unpack(merge(None, old).states[0], MERCHANT_EVENT)
    assert kept["event_time"].tolist() == [1, DAY + SLACK + 1]


def test_an_empty_state_has_no_events():
    assert unpack(None, MERCHANT_EVENT).size == 0


@pytest.mark.parametrize("state", [b"", b"hello world", pack(events((1, 1, 1.0)))[:-1]])
def test_bytes_that_are_no_state_are_refused_with_the_way_out(state):
    with pytest.raises(ValueError, match="throughline fraud features"):
        unpack(state, MERCHANT_EVENT)


def test_ids_are_coded_alike_alone_and_in_a_column():
    codes = encode_ids(pd.Series(["a", None, "b", "a"]))
    assert codes.tolist() == [encode_id("a"), 0, encode_id("b"), encode_id("a")]


def test_a_missing_optional_column_becomes_no_code_and_no_place():
    transactions = pd.DataFrame(
        {
            "transaction_id": ["t1"],
            "event_time": pd.to_datetime(["2026-01-01T00:00:00Z"]),
            "customer_id": ["c1"],
            "amount": [5.0],
        }
    )
    event = make_events(transactions, "customer_events")[0]
    assert event["merchant"] == event["device"] == 0
    assert np.isnan(event["latitude"])


def customer_state(*times):
    rows = np.zeros(len(times), CUSTOMER_EVENT)
    rows["event_time"], rows["transaction"], rows["amount"] = times, range(1, len(times) + 1), 10.0
    return pack(rows)


def request(time):
    return {"amount": np.array([10.0]), "event_time_us": np.array([time])}


def test_windows_are_as_of_the_request_not_as_of_the_last_event():
    states = {"customer_events": [customer_state(0)]}
    soon = compute_online(states, request(HOUR))
    later = compute_online(states, request(HOUR + 1))
    assert soon["customer_tx_count_1h"][0] == 1
    assert later["customer_tx_count_1h"][0] == 0


def test_events_after_the_request_are_invisible_to_it():
    with_future = compute_online({"customer_events": [customer_state(0, 50)]}, request(10))
    without = compute_online({"customer_events": [customer_state(0)]}, request(10))
    for name, values in without.items():
        np.testing.assert_array_equal(with_future[name], values, err_msg=name)


def test_a_request_so_late_that_its_events_may_be_gone_gets_unknown_not_wrong_values():
    states = {"customer_events": [customer_state(0, 40 * DAY)]}
    late = compute_online(states, request(40 * DAY - SLACK - 1))
    in_time = compute_online(states, request(40 * DAY - SLACK))
    assert np.isnan(late["customer_tx_count_7d"][0])
    assert in_time["customer_tx_count_7d"][0] == 0


def test_an_unknown_customer_has_counted_nothing_and_means_are_unknown():
    columns = compute_online({"customer_events": [None]}, request(DAY))
    assert columns["customer_tx_count_7d"][0] == 0
    assert np.isnan(columns["customer_amount_mean_7d"][0])


def test_a_batch_gives_each_request_what_it_would_get_alone():
    states = [customer_state(0, 5), None, customer_state(7)]
    together = compute_online(
        {"customer_events": states},
        {"amount": np.full(3, 10.0), "event_time_us": np.array([HOUR, HOUR, HOUR])},
    )
    for position, state in enumerate(states):
        alone = compute_online({"customer_events": [state]}, request(HOUR))
        for name, values in alone.items():
            np.testing.assert_array_equal(together[name][[position]], values, err_msg=name)


def test_the_caps_that_the_documents_name_are_those_that_hold():
    root = Path(__file__).parents[2]
    for name in ("docs/stream.md", "DECISIONS.md"):
        text = (root / name).read_text(encoding="utf-8")
        for kind in EVENT_STATES.values():
            assert f"{kind.max_events:,}" in text
