"""The handbook's inputs against SQL window frames, and ours against plain loops; no peeking."""

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.handbook import simulate_handbook
from features.handbook import build_handbook_features
from features.handbook_signals import build_handbook_signals
from features.past_values import find_past_quantiles, trace_fraud_runs
from features.windows import DAY

WEEK_SECONDS = 7 * 86_400


@pytest.fixture(scope="module")
def transactions():
    world = simulate_handbook(num_customers=60, num_terminals=120, num_days=50, radius=12.0)
    assert world.transactions["is_fraud"].sum() > 100
    return world.transactions


def compute_as_sql(transactions):
    """The 15 inputs as DuckDB range frames over whole seconds."""

    def frame(entity, low, high):
        return (
            f"OVER (PARTITION BY {entity} ORDER BY time_seconds "
            f"RANGE BETWEEN {low} PRECEDING AND {high} PRECEDING)"
        )

    columns = ["amount", "isodow(t) >= 6 AS is_weekend", "hour(t) <= 6 AS is_night"]
    for days in (1, 7, 30):
        own = frame("customer_id", days * 86_400 - 1, 0)
        old = frame("terminal_id", (7 + days) * 86_400 - 1, 7 * 86_400)
        columns += [
            f"count(*) {own} AS customer_tx_count_{days}d",
            f"avg(amount) {own} AS customer_amount_mean_{days}d",
            f"count(*) {old} AS terminal_tx_count_{days}d",
            f"coalesce(avg(is_fraud::INT) {old}, 0) AS terminal_risk_{days}d",
        ]
    with duckdb.connect() as connection:
        connection.register("transactions", transactions)
        return connection.sql(
            f"SELECT {', '.join(columns)} FROM (SELECT *, TIMESTAMP '2018-04-01' + "
            "to_seconds(time_seconds) AS t FROM transactions) ORDER BY transaction_id"
        ).df()


def test_the_fifteen_inputs_equal_duckdbs_range_frames(transactions):
    found = build_handbook_features(transactions)
    expected = compute_as_sql(transactions)
    assert found.shape == (len(transactions), 15)
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_allclose(
            found[name], expected[name].astype(float), rtol=1e-9, atol=1e-12, err_msg=name
        )
    assert (found["terminal_risk_30d"] > 0).mean() > 0.01


def test_without_the_delay_a_terminals_windows_end_just_before_the_transaction():
    rows = pd.DataFrame(
        {
            "time_seconds": [0, 10, 10, 20],
            "day": 0,
            "customer_id": 0,
            "terminal_id": 0,
            "amount": 1.0,
            "is_fraud": [True, False, True, False],
        }
    )
    found = build_handbook_features(rows, delay_days=0)
    assert found["terminal_risk_1d"].tolist() == [0.0, 1.0, 1.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize("build", [build_handbook_features, build_handbook_signals])
def test_neither_later_rows_nor_labels_younger_than_a_week_change_an_input(transactions, build):
    """Asked of frauds at compromised terminals, where yesterday's labels would tell most."""
    whole = build(transactions)
    compromised = np.flatnonzero((transactions["scenario"] == 2) & (transactions["day"] > 20))
    for asked in np.random.default_rng(0).choice(compromised, 25, replace=False):
        seen = transactions.iloc[: asked + 1]
        now = seen["time_seconds"].iloc[-1]
        blind = seen.assign(is_fraud=seen["is_fraud"] ^ (seen["time_seconds"] > now - WEEK_SECONDS))
        pd.testing.assert_series_equal(whole.iloc[asked], build(blind).iloc[-1])


@pytest.mark.parametrize("build", [build_handbook_features, build_handbook_signals])
def test_no_input_depends_on_the_transactions_own_label(transactions, build):
    whole = build(transactions)
    for row in (len(transactions) - 1, len(transactions) // 2):
        flipped = transactions.copy()
        flipped.loc[row, "is_fraud"] = not flipped.loc[row, "is_fraud"]
        pd.testing.assert_series_equal(whole.iloc[row], build(flipped).iloc[row])


def test_an_amount_is_compared_with_the_customers_earlier_ones_only(transactions):
    found = build_handbook_signals(transactions)
    for row in np.random.default_rng(0).choice(len(transactions), 60, replace=False):
        own = transactions.iloc[row]
        past = transactions[
            (transactions["customer_id"] == own["customer_id"])
            & (transactions["time_seconds"] < own["time_seconds"])
        ]
        known = past["time_seconds"] <= own["time_seconds"] - WEEK_SECONDS
        assert found["customer_tx_count_ever"][row] == len(past)
        assert found["customer_known_frauds_ever"][row] == past["is_fraud"][known].sum()
        for name, share in (("median", 0.5), ("q95", 0.95), ("max", 1.0)):
            usual = max(past["amount"].quantile(share), 1.0)
            ratio = found[f"amount_to_customer_{name}"][row]
            assert ratio == pytest.approx(own["amount"] / usual, nan_ok=True)


def test_a_plain_fraud_is_one_that_only_its_terminal_explains():
    """Day 0 and 1 legitimate, then an extreme and an ordinary fraud; asked eight days later."""
    days = [0, 1, 2, 3, 11]
    rows = pd.DataFrame(
        {
            "time_seconds": [day * 86_400 + 5 for day in days],
            "day": days,
            "customer_id": [0, 0, 0, 0, 0],
            "terminal_id": [0, 0, 0, 0, 0],
            "amount": [10.0, 10.0, 300.0, 10.0, 10.0],
            "is_fraud": [False, False, True, True, False],
        }
    )
    last = build_handbook_signals(rows).iloc[-1]
    assert last[["terminal_run_length", "terminal_run_days"]].tolist() == [2.0, 9.0]
    assert last[["terminal_plain_run_length", "terminal_plain_run_days"]].tolist() == [1.0, 8.0]
    assert last["terminal_legitimate_days"] == 10.0
    assert last["terminal_plain_frauds_14d"] == 1.0


histories = st.lists(
    st.tuples(st.integers(-1, 1), st.floats(0, 100), st.integers(0, 2)), max_size=30
)


@given(histories)
def test_quantiles_and_runs_equal_a_plain_loop(history):
    kinds = np.array([kind for kind, _, _ in history], dtype=np.int64)
    values = np.array([value for _, value, _ in history], dtype=np.float64)
    lags = np.array([lag for _, _, lag in history], dtype=np.int64)
    high = np.maximum.accumulate(np.maximum(np.arange(len(history)) - lags, 0))
    high = high.astype(np.int64)
    times, starts = np.arange(len(history)) * DAY, np.array([0, len(history)])
    quantiles = find_past_quantiles(values, starts, high, shares=(0.25, 1.0))
    runs = trace_fraud_runs(times, kinds, starts, high)
    for row, seen in enumerate(high):
        expected = np.quantile(values[:seen], [0.25, 1.0]) if seen else [np.nan, np.nan]
        np.testing.assert_allclose(quantiles[row], expected, rtol=1e-12, atol=1e-12)
        legitimate = [i for i in range(seen) if kinds[i] == 0]
        after = legitimate[-1] + 1 if legitimate else 0
        frauds = [i for i in range(after, seen) if kinds[i] == 1]
        assert runs.length[row] == len(frauds)
        since = row - frauds[0] if frauds else np.nan
        np.testing.assert_equal(runs.days_since_start[row], since)
        since = row - legitimate[-1] if frauds and legitimate else np.nan
        np.testing.assert_equal(runs.days_since_legitimate[row], since)
