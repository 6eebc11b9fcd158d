"""The fast reader asks a store once, for each entity once, and puts the answers back in order."""

import numpy as np
import pandas as pd
import pytest

from features.fast_reader import FastReader
from features.fraud_state import EVENT_STATES
from features.state_merge import build_event_states
from features.state_store import StoreEmptyError


class FakeStates:
    """States built from transactions; remembers what it was asked."""

    def __init__(self, transactions):
        self.asked = []
        self.is_whole = True
        self._states = {}
        for state, kind in EVENT_STATES.items():
            if kind.key in transactions:
                built = build_event_states(transactions, state)
                self._states[state] = dict(zip(built[kind.key], built[state], strict=True))

    def read(self, entities, states):
        self.asked.append({key: list(ids) for key, ids in entities.items()})
        if not self.is_whole:
            raise StoreEmptyError
        keys = {name: kind.key for name, kind in EVENT_STATES.items()}
        keys |= {"merchant_labels": "merchant_id", "category_labels": "merchant_category"}
        return {
            state: [self._states.get(state, {}).get(entity) for entity in entities[keys[state]]]
            for state in states
        }


@pytest.fixture
def transactions():
    """Ann pays three times, Bob once; one payment names no merchant."""
    return pd.DataFrame(
        {
            "transaction_id": ["t1", "t2", "t3", "t4"],
            "event_time": pd.to_datetime(
                ["2026-01-01T00:00Z", "2026-01-01T00:10Z", "2026-01-01T00:20Z", "2026-01-01T00:30Z"]
            ).astype("datetime64[us, UTC]"),
            "customer_id": ["ann", "ann", "bob", "ann"],
            "merchant_id": ["m1", "m1", "m1", None],
            "amount": [10.0, 30.0, 50.0, 5.0],
        }
    )


@pytest.fixture
def states(transactions):
    return FakeStates(transactions)


def test_answers_come_in_the_order_asked_whatever_the_entities_order(states, transactions):
    shuffled = transactions.iloc[[3, 2, 0, 1]].reset_index(drop=True)
    found = FastReader(states).read(shuffled)
    assert found["customer_tx_count_1h"].tolist() == [2, 0, 0, 1]
    np.testing.assert_array_equal(found["merchant_amount_mean_30d"], [np.nan, 20.0, np.nan, 10.0])


def test_a_batch_is_one_read_of_each_entity_once(states, transactions):
    FastReader(states).read(transactions)
    assert states.asked == [{"customer_id": ["ann", "bob"], "merchant_id": ["m1", ""]}]


def test_states_whose_column_is_missing_are_not_asked_for(states, transactions):
    found = FastReader(states).read(transactions.drop(columns="merchant_id"))
    assert states.asked == [{"customer_id": ["ann", "bob"]}]
    assert "merchant_amount_mean_30d" not in found


def test_an_unknown_customer_has_no_history_and_disturbs_nobody(states, transactions):
    asked = transactions.tail(2).assign(customer_id=["nobody", "ann"])
    found = FastReader(states).read(asked)
    assert found["customer_tx_count_7d"].tolist() == [0, 2]
    assert np.isnan(found["customer_amount_mean_7d"][0])


def test_history_held_in_tiles_is_said_of_the_transactions_it_concerns(transactions, monkeypatch):
    kind = EVENT_STATES["customer_events"]
    monkeypatch.setitem(EVENT_STATES, "customer_events", kind._replace(max_events=2))
    found = FastReader(FakeStates(transactions)).read(transactions)
    assert found["is_tiled"].tolist() == [True, True, False, True]


def test_a_store_that_is_not_whole_is_an_error_not_an_empty_history(states, transactions):
    states.is_whole = False
    with pytest.raises(StoreEmptyError, match="rebuild"):
        FastReader(states).read(transactions)


def test_reading_does_not_modify_the_transactions(states, transactions):
    before = transactions.copy()
    FastReader(states).read(transactions)
    pd.testing.assert_frame_equal(transactions, before)
