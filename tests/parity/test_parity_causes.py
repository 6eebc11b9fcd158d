"""A difference is put down to a legitimate cause only if that cause gives just what was served."""

import numpy as np
import pandas as pd
import pytest

from features.fraud_history import to_microseconds
from features.fraud_online import compute_online, make_requests
from features.fraud_replay import recompute_features
from features.fraud_state import EVENT_STATES
from features.state_merge import build_event_states
from monitoring.parity_causes import (
    DEGRADED,
    LABEL_LAG,
    LATE_EVENT,
    STREAM_LAG,
    TILED,
    TOO_OLD,
    Known,
    find_state,
)
from monitoring.parity_verdict import judge_parity

NOON = pd.Timestamp("2026-03-10T12:00:00Z")


@pytest.fixture
def history():
    """Ann pays at noon; what came before it stands as seconds ahead in the id."""
    ages = (40 * 86400, 3 * 86400, 2 * 86400, 7200, 20, 5, 0)
    return pd.DataFrame(
        {
            "transaction_id": [f"s{age}" for age in ages],
            "event_time": pd.Series([NOON - pd.Timedelta(seconds=age) for age in ages]).astype(
                "datetime64[us, UTC]"
            ),
            "customer_id": "ann",
            "merchant_id": ["m2", "m1", "m1", "m1", "m2", "m1", "m1"],
            "amount": [10.0, 20.0, 30.0, 35.0, 50.0, 70.0, 11.0],
        }
    )


@pytest.fixture
def labels():
    """Two labels of m1: fraud, which arrived the day before, and not, on the day before that."""
    return pd.DataFrame(
        {
            "transaction_id": ["s172800", "s259200"],
            "is_fraud": [True, False],
            "label_time": pd.to_datetime(["2026-03-09T10:00:00Z", "2026-03-08T10:00:00Z"]).astype(
                "datetime64[us, UTC]"
            ),
        }
    )


def judge(history, labels, served, *, late=None, degraded=None, asked="s0", max_lag_seconds=60.0):
    """Hold one served row against history; ``late`` is how long transactions took to arrive."""
    row = history[history["transaction_id"] == asked]
    prediction = row[["transaction_id", "event_time", "amount"]].assign(
        prediction_time=NOON, degraded_reason=degraded
    )
    delays = history["transaction_id"].map(late or {}).fillna(0).to_numpy(np.int64) * 1_000_000
    known = Known(history, to_microseconds(history["event_time"]) + delays, labels)
    features = served.drop(columns="transaction_id", errors="ignore")
    return judge_parity(
        prediction.reset_index(drop=True), features, known, max_lag_seconds=max_lag_seconds
    )


def serve(history, labels, *, without=(), asked="s0"):
    """What a store would serve that has not seen some of the transactions."""
    seen = history[~history["transaction_id"].isin(without)]
    return recompute_features(seen, labels, history[history["transaction_id"] == asked])


def causes_of(verdict):
    assert len(verdict.mismatches)
    return set(verdict.mismatches["cause"])


def test_the_same_values_are_no_mismatch(history, labels):
    assert judge(history, labels, serve(history, labels)).mismatches.empty


def test_an_event_not_yet_processed_is_lag_of_as_long_as_it_was_there(history, labels):
    verdict = judge(history, labels, serve(history, labels, without=["s5"]))
    assert causes_of(verdict) == {STREAM_LAG}
    assert set(verdict.mismatches["behind_seconds"]) == {5.0}
    assert verdict.unexplained_share == 0


def test_lag_takes_all_that_came_after_so_a_hole_in_the_middle_is_unexplained(history, labels):
    verdict = judge(history, labels, serve(history, labels, without=["s20"]))
    assert None in causes_of(verdict)
    both = judge(history, labels, serve(history, labels, without=["s5", "s20"]))
    assert causes_of(both) == {STREAM_LAG}
    assert both.mismatches["behind_seconds"].max() == 20.0


def test_lag_beyond_the_limit_is_unexplained(history, labels):
    served = serve(history, labels, without=["s5", "s20"])
    assert None in causes_of(judge(history, labels, served, max_lag_seconds=10.0))


def test_an_event_that_came_after_the_request_is_late(history, labels):
    verdict = judge(
        history, labels, serve(history, labels, without=["s7200"]), late={"s7200": 7300}
    )
    assert causes_of(verdict) == {LATE_EVENT}


def test_an_event_that_was_lost_is_unexplained(history, labels):
    verdict = judge(history, labels, serve(history, labels, without=["s7200"]))
    assert causes_of(verdict) == {None}
    assert "customer_tx_count_24h" in set(verdict.unexplained["feature"])
    assert verdict.unexplained_share == 1


def test_one_value_beside_the_cause_is_not_excused_by_it(history, labels):
    served = serve(history, labels, without=["s5"])
    served["customer_amount_max_30d"] += 1
    verdict = judge(history, labels, served)
    cause = verdict.mismatches.set_index("feature")["cause"]
    assert cause["customer_tx_count_1h"] is None
    assert cause["merchant_amount_mean_30d"] == STREAM_LAG  # another state: rightly excused


def test_the_last_days_labels_missing_is_label_lag_and_more_is_not(history, labels):
    def without_last(num):
        return serve(history, labels.iloc[num:])

    assert causes_of(judge(history, labels, without_last(1))) == {LABEL_LAG}
    assert causes_of(judge(history, labels, without_last(2))) == {None}


def test_a_degraded_prediction_lacks_history_by_declaration(history, labels):
    served = serve(history, labels)
    windows = [name for name in served if find_state(name) is not None]
    served[windows] = np.nan
    declared = judge(history, labels, served, degraded="online store unavailable")
    assert causes_of(declared) == {DEGRADED}
    assert causes_of(judge(history, labels, served)) == {None}


def test_a_degraded_prediction_with_a_wrong_amount_is_not_excused(history, labels):
    served = serve(history, labels).assign(amount_log=9.0)
    verdict = judge(history, labels, served, degraded="online store unavailable")
    assert verdict.unexplained["feature"].tolist() == ["amount_log"]


def test_a_request_older_than_states_reach_is_told_apart(history, labels):
    served = serve(history, labels, asked="s259200")
    own = [name for name in served if str(find_state(name)).startswith("customer")]
    served[own] = np.nan
    verdict = judge(history, labels, served, asked="s259200")
    assert causes_of(verdict) == {TOO_OLD}


def test_a_history_over_its_cap_is_tiled(history, labels, monkeypatch):
    for state, kind in EVENT_STATES.items():
        monkeypatch.setitem(EVENT_STATES, state, kind._replace(max_events=1))
    row = history.tail(1)
    past = history.head(6)
    m1 = past[past["merchant_id"] == "m1"]
    states = {
        "customer_events": [build_event_states(past, "customer_events")["customer_events"][0]],
        "merchant_events": [build_event_states(m1, "merchant_events")["merchant_events"][0]],
        "merchant_labels": [None],
    }
    served = pd.DataFrame(compute_online(states, make_requests(row)))
    verdict = judge(history, labels.head(0), served)
    assert "customer_unique_merchants_7d" in set(verdict.mismatches["feature"])
    assert causes_of(verdict) == {TILED}


def test_a_prediction_of_a_transaction_nobody_accepted_is_listed_not_judged(history, labels):
    served = serve(history, labels)
    row = history.tail(1)
    unknown = row.assign(transaction_id="t-unknown")[["transaction_id", "event_time", "amount"]]
    predictions = pd.concat([unknown, row[["transaction_id", "event_time", "amount"]]]).assign(
        prediction_time=NOON, degraded_reason=None
    )
    twice = pd.concat([served, served], ignore_index=True).drop(columns="transaction_id")
    known = Known(history, to_microseconds(history["event_time"]), labels)
    verdict = judge_parity(predictions.reset_index(drop=True), twice, known, max_lag_seconds=60.0)
    assert verdict.unknown == ["t-unknown"]
    assert verdict.rows == 1
    assert verdict.mismatches.empty
