"""Every fraud feature in SQL: window frames and joins in DuckDB, which share no code with ours."""

import duckdb
import numpy as np
import pandas as pd

_LENGTHS = {"1h": "1 HOUR", "24h": "24 HOUR", "7d": "7 DAY", "30d": "30 DAY"}
_FRAMES = ", ".join(
    f"{name}_{length} AS (PARTITION BY {key} ORDER BY event_time"
    f" RANGE BETWEEN INTERVAL {interval} PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)"
    for name, key in {
        "c": "customer_id", "d": "customer_id, device_id", "p": "customer_id, merchant_id",
        "m": "merchant_id", "i": "ip",
    }.items()
    for length, interval in _LENGTHS.items()
)  # fmt: skip
_PLACED = "FILTER (WHERE latitude IS NOT NULL AND longitude IS NOT NULL)"

_WINDOWS = f"""
SELECT *,
  count(*) OVER c_1h AS customer_tx_count_1h,
  count(*) OVER c_24h AS customer_tx_count_24h,
  count(*) OVER c_7d AS customer_tx_count_7d,
  avg(amount) OVER c_7d AS customer_amount_mean_7d,
  avg(amount) OVER c_30d AS customer_amount_mean_30d,
  stddev_pop(amount) OVER c_7d AS std_7d,
  stddev_pop(amount) OVER c_30d AS std_30d,
  max(amount) OVER c_30d AS customer_amount_max_30d,
  count(DISTINCT merchant_id) OVER c_24h AS customer_unique_merchants_24h,
  count(DISTINCT merchant_id) OVER c_7d AS customer_unique_merchants_7d,
  (epoch_us(event_time) - max(epoch_us(event_time)) OVER c_30d) / 1e6
    AS customer_seconds_since_previous,
  CASE WHEN device_id IS NOT NULL THEN count(*) OVER d_30d END AS device_uses,
  CASE WHEN merchant_id IS NOT NULL THEN count(*) OVER p_30d END AS merchant_uses,
  CASE WHEN merchant_id IS NOT NULL THEN avg(amount) OVER m_30d END AS merchant_amount_mean_30d,
  CASE WHEN ip IS NOT NULL THEN count(DISTINCT customer_id) OVER i_24h END
    AS ip_unique_customers_24h,
  avg(cos(radians(latitude)) * cos(radians(longitude))) {_PLACED} OVER c_30d AS x,
  avg(cos(radians(latitude)) * sin(radians(longitude))) {_PLACED} OVER c_30d AS y,
  avg(sin(radians(latitude))) {_PLACED} OVER c_30d AS z,
  cos(radians(latitude)) * cos(radians(longitude)) AS here_x,
  cos(radians(latitude)) * sin(radians(longitude)) AS here_y,
  sin(radians(latitude)) AS here_z
FROM transactions WINDOW {_FRAMES}
"""


def _rate(key):
    """The share of fraud among labels of the 30 whole days before today, towards 1 in 100."""
    return f"""
CASE WHEN w.{key} IS NOT NULL THEN (
  SELECT (count(*) FILTER (WHERE l.is_fraud) + 0.5) / (count(*) + 50.0)
  FROM labels l JOIN transactions o USING (transaction_id)
  WHERE o.{key} = w.{key}
    AND date_trunc('day', l.label_time) < date_trunc('day', w.event_time)
    AND date_trunc('day', l.label_time) >= date_trunc('day', w.event_time) - INTERVAL 30 DAY
) END"""


_FEATURES = f"""
WITH w AS ({_WINDOWS}), d AS (
  SELECT w.*,
    {_rate("merchant_id")} AS merchant_fraud_rate,
    {_rate("merchant_category")} AS merchant_category_risk,
    (amount - customer_amount_mean_7d) / greatest(std_7d, 1) AS customer_amount_zscore_7d,
    (amount - customer_amount_mean_30d) / greatest(std_30d, 1) AS customer_amount_zscore_30d,
    6371.0088 * atan2(
      sqrt((here_y * z - here_z * y) ** 2 + (here_z * x - here_x * z) ** 2
        + (here_x * y - here_y * x) ** 2),
      here_x * x + here_y * y + here_z * z) AS ip_distance_km_from_usual,
    2 * pi() * (epoch_us(event_time) % 86400000000) / 86400e6 AS angle,
    CAST(hour(event_time) < 6 AS DOUBLE) AS is_night
  FROM w)
SELECT *,
  ln(1 + amount) AS amount_log,
  sin(angle) AS hour_sin,
  cos(angle) AS hour_cos,
  isodow(event_time) - 1 AS day_of_week,
  isodow(event_time) >= 6 AS is_weekend,
  CASE WHEN merchant_amount_mean_30d > 0 THEN amount / merchant_amount_mean_30d END
    AS amount_to_merchant_mean,
  device_uses > 0 AS is_known_device,
  customer_amount_zscore_30d * is_night AS amount_zscore_by_night,
  merchant_uses = 0 AND customer_amount_zscore_30d > 2 AS is_new_and_high,
  ip_distance_km_from_usual > 100 AND customer_seconds_since_previous < 3600 AS is_far
FROM d ORDER BY position
"""


def compute_by_duckdb(transactions, labels):
    """Compute every feature of every transaction, in the order given."""
    naive = transactions.assign(
        event_time=transactions["event_time"].dt.tz_localize(None),
        position=range(len(transactions)),
    )
    arrived = labels.assign(label_time=labels["label_time"].dt.tz_localize(None))
    for name in ("merchant_id", "merchant_category", "device_id", "ip"):
        naive[name] = naive[name].astype("string")  # a column of None alone has no type otherwise
    with duckdb.connect() as connection:
        connection.register("transactions", naive)
        connection.register("labels", arrived)
        found = connection.sql(_FEATURES).df()
    # SQL's AND knows that false and unknown is false; the features say unknown.
    unknown = found["merchant_uses"].isna() | found["customer_amount_zscore_30d"].isna()
    found["is_new_merchant_and_high_amount"] = found["is_new_and_high"].mask(unknown)
    nowhere = found["ip_distance_km_from_usual"].isna()
    unknown = nowhere | found["customer_seconds_since_previous"].isna()
    found["is_far_and_fast"] = found["is_far"].mask(unknown)
    return pd.DataFrame(
        {
            name: pd.to_numeric(found[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
            for name in found.columns
            if found[name].dtype.kind in "bifO" and name not in {"is_new_and_high", "is_far"}
        }
    )
