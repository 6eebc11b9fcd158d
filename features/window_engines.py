"""Card transactions become count, mean and maximum over four windows, by us and by our peers.

Each engine gets the rows in its own form, in time order and not grouped, and answers the same 12
features: every sort, hash and grouping it needs is its own, and inside the time measured. Each may
use the threads it uses by default; ours uses ``THREADS``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyarrow as pa

from features.event_tables import EventColumns, aggregate_table
from features.fraud_windows import Grouped
from features.windows import DAY, HOUR, Floats, count_windows, slide_moments

WINDOWS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
COLUMNS = EventColumns("card_id", keep=("transaction_id",))
FEATURES = [f"{kind}_{window}" for window in WINDOWS for kind in ("count", "mean", "max")]
THREADS = 2
DUCKDB_INTERVALS = {"1h": "1 HOUR", "24h": "24 HOUR", "7d": "7 DAY", "30d": "30 DAY"}

Compute = Callable[[], object]
"""Computes every feature; the result has columns, ``transaction_id`` among them."""


def aggregate_card_windows(groups: Grouped, amounts: Floats) -> dict[str, Floats]:
    """Count and summarise what each card spent before each transaction.

    Args:
        groups: Transactions grouped by card.
        amounts: Account currency. Shape ``(events,)``.

    Returns:
        One array per name in ``FEATURES``.
    """
    features = {}
    for window, length in WINDOWS.items():
        bounds = groups.find_bounds(length)
        moments = slide_moments(amounts, bounds)
        features[f"count_{window}"] = count_windows(bounds)
        features[f"mean_{window}"] = moments.mean
        features[f"max_{window}"] = moments.max
    return features


def prepare_ours(transactions: pa.Table) -> Compute:
    """Prepare this project's kernel: a hash of the ids, a counting sort, one slide per window."""
    return partial(
        aggregate_table,
        transactions,
        columns=COLUMNS,
        aggregate=aggregate_card_windows,
        threads=THREADS,
    )


def prepare_duckdb(transactions: pa.Table) -> Compute:
    """Prepare DuckDB: RANGE frames that end a microsecond before the row."""
    import duckdb

    connection = duckdb.connect()
    connection.register("arrow", transactions)
    connection.execute("CREATE TABLE transactions AS SELECT * FROM arrow")
    features = ", ".join(
        f"count(*) OVER w{window} AS count_{window}, avg(amount) OVER w{window} AS mean_{window}, "
        f"max(amount) OVER w{window} AS max_{window}"
        for window in WINDOWS
    )
    frames = ", ".join(
        f"w{window} AS (PARTITION BY card_id ORDER BY event_time RANGE BETWEEN "
        f"INTERVAL {length} PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)"
        for window, length in DUCKDB_INTERVALS.items()
    )
    query = f"SELECT transaction_id, {features} FROM transactions WINDOW {frames}"
    return lambda: connection.sql(query).to_arrow_table()


def prepare_polars(transactions: pa.Table) -> Compute:
    """Prepare polars: ``rolling_*_by``, closed on the left, over each card.

    ``rolling(...).agg(...)`` gives the same and takes about six times as long.
    """
    import polars as pl

    rows = pl.from_arrow(transactions)
    assert isinstance(rows, pl.DataFrame)
    one, amount, by = pl.col("one"), pl.col("amount"), "event_time"

    def roll(window: str) -> list[pl.Expr]:
        rolled = {
            "count": one.rolling_sum_by(by, window_size=window, closed="left"),
            "mean": amount.rolling_mean_by(by, window_size=window, closed="left"),
            "max": amount.rolling_max_by(by, window_size=window, closed="left"),
        }
        over_cards = {kind: column.over("card_id") for kind, column in rolled.items()}
        over_cards["count"] = over_cards["count"].fill_null(0.0)
        return [column.alias(f"{kind}_{window}") for kind, column in over_cards.items()]

    features = [feature for window in WINDOWS for feature in roll(window)]
    return lambda: rows.with_columns(one=pl.lit(1.0)).select("transaction_id", *features)


def prepare_pandas(transactions: pa.Table) -> Compute:
    """Prepare pandas: ``groupby(...).rolling(...)``, closed on the left.

    pandas counts an earlier row at the same instant; these transactions have none.
    """
    import pandas as pd

    rows = transactions.to_pandas()

    def compute() -> pd.DataFrame:
        ordered = rows.sort_values(["card_id", "event_time"], kind="stable", ignore_index=True)
        amounts = ordered.set_index("event_time").groupby("card_id")["amount"]
        columns = {"transaction_id": ordered["transaction_id"]}
        for window in WINDOWS:
            rolled = amounts.rolling(window, closed="left").agg(["count", "mean", "max"])
            columns |= {f"{kind}_{window}": rolled[kind].to_numpy() for kind in rolled}
        return pd.DataFrame(columns).fillna({f"count_{window}": 0.0 for window in WINDOWS})

    return compute


ENGINES: dict[str, Callable[[pa.Table], Compute]] = {
    "throughline": prepare_ours,
    "duckdb": prepare_duckdb,
    "polars": prepare_polars,
    "pandas": prepare_pandas,
}
"""How each engine is prepared, by the name of its package."""
