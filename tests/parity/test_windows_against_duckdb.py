"""The fraud windows against SQL window frames in DuckDB, which shares no code with them."""

import duckdb
import numpy as np
import pytest

from features.store import read_training_features

FRAME = "RANGE BETWEEN INTERVAL {length} PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING"
ORACLES = {
    "customer_tx_count_1h": ("customer_id", "count(*)", "1 HOUR"),
    "customer_tx_count_24h": ("customer_id", "count(*)", "24 HOUR"),
    "customer_tx_count_7d": ("customer_id", "count(*)", "7 DAY"),
    "customer_amount_mean_7d": ("customer_id", "avg(amount)", "7 DAY"),
    "customer_amount_mean_30d": ("customer_id", "avg(amount)", "30 DAY"),
    "customer_amount_max_30d": ("customer_id", "max(amount)", "30 DAY"),
    "customer_unique_merchants_24h": ("customer_id", "count(DISTINCT merchant_id)", "24 HOUR"),
    "customer_unique_merchants_7d": ("customer_id", "count(DISTINCT merchant_id)", "7 DAY"),
    "customer_seconds_since_previous": (
        "customer_id", "epoch_us(event_time) / 1e6 - max(epoch_us(event_time)) / 1e6", "30 DAY",
    ),
    "customer_amount_zscore_30d": (
        "customer_id", "(amount - avg(amount)) / greatest(stddev_pop(amount), 1)", "30 DAY",
    ),
    "merchant_amount_mean_30d": ("merchant_id", "avg(amount)", "30 DAY"),
    "ip_unique_customers_24h": ("ip", "count(DISTINCT customer_id)", "24 HOUR"),
}  # fmt: skip


@pytest.mark.parametrize("feature", ORACLES)
def test_a_window_feature_equals_duckdbs_range_frame(feature, world, store):
    transactions = world[0].assign(event_time=world[0]["event_time"].dt.tz_localize(None))
    entity, aggregate, length = ORACLES[feature]
    window = f"OVER (PARTITION BY {entity} ORDER BY event_time {FRAME.format(length=length)})"
    for function in ("count(*)", "count(DISTINCT merchant_id)", "count(DISTINCT customer_id)",
                     "avg(amount)", "max(amount)", "stddev_pop(amount)",
                     "max(epoch_us(event_time))"):  # fmt: skip
        aggregate = aggregate.replace(function, f"{function} {window}")
    with duckdb.connect() as connection:
        connection.register("transactions", transactions)
        expected = connection.sql(
            f"SELECT CASE WHEN {entity} IS NOT NULL THEN {aggregate} END AS value"
            " FROM transactions ORDER BY CAST(substr(transaction_id, 2) AS INTEGER)"
        ).fetchnumpy()["value"]
    history = read_training_features(store, world[0])
    np.testing.assert_allclose(
        history[feature],
        np.ma.filled(np.ma.asarray(expected, dtype=np.float64), np.nan),
        rtol=1e-9,
        atol=1e-6 if feature == "customer_seconds_since_previous" else 1e-9,
    )
