"""A history becomes training rows against the clock: our offline store beside Feast's own.

Ours joins every transaction with every fraud feature. Feast's ``file`` store forms every earlier
pair of a row and a table row first, too many for a whole history, so both also get its last whole
days, with the feature tables cut to the same days. The cut changes no answer: a transaction's
values stand in the tables at its own instant, or at its day's beginning. What ours says of those
days **in the join of the whole history** is compared with what the ``file`` store says.
"""

from __future__ import annotations

import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from feast import FeatureStore
from feast.repo_config import RegistryConfig, RepoConfig

from configs.benchmark import Target, build_benchmark, measure_in_a_process
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_summary, load_transactions, run_data, summary_path, transactions_path
from features.definitions import HISTORY_VIEWS, OFFLINE_FOLDER
from features.store import (
    FraudFeatureStore,
    get_stamp_file,
    make_entity_rows,
    open_feature_store,
    read_training_features,
)
from features.store_build import run_features

Store = Literal["features.offline_store.AsofOfflineStore", "file"]
OURS: Store = "features.offline_store.AsofOfflineStore"
STOCK: Store = "file"
FULL_ROWS = 1_700_000
"""Seconds and memory are held to their targets from so many transactions on."""


def run_bench_history(config: FraudConfig, *, sample_rows: int) -> dict[str, Any]:
    """Measure the point-in-time join.

    Args:
        config: Its ``runs`` holds the world, or gets one of its ``data.size`` and ``seed``.
        sample_rows: How many transactions both stores get, rounded up to whole days.

    Returns:
        A benchmark's result: the whole history, and the sample in both stores; the stock store's
        row says how equal the answers are.

    Raises:
        ValueError: If ``runs`` holds a world of another size.
    """
    _prepare_world(config)
    with TemporaryDirectory() as folder:
        sample, whole_answers, stock_answers = (
            Path(folder) / name for name in ("sample", "whole.parquet", "stock.parquet")
        )
        num_rows = _cut_sample(config.runs, sample, num_rows=sample_rows)
        whole = _measure(config.runs, None, store=OURS, answers=whole_answers)
        ours = _measure(config.runs, sample, store=OURS, answers=Path(folder) / "ours.parquet")
        stock = _measure(config.runs, sample, store=STOCK, answers=stock_answers)
        equality = compare_answers(
            pd.read_parquet(whole_answers).tail(num_rows), pd.read_parquet(stock_answers)
        )
    return _summarise(whole, ours, stock, equality)


def _prepare_world(config: FraudConfig) -> None:
    """Simulate the world and compute its features, where ``runs`` does not hold them yet."""
    if not summary_path(config.runs).is_file():
        run_data(config)
    size = load_summary(config.runs).get("size", config.data.size)  # a user's own file has none
    if size != config.data.size:
        raise ValueError(
            f"{config.runs} holds a world of size {size}; give --size {size} or another --runs"
        )
    if not get_stamp_file(config.runs).is_file():
        run_features(config)


def _cut_sample(runs: Path, sample: Path, *, num_rows: int) -> int:
    """Copy the last whole days of the transactions and feature tables; return how many rows."""
    transactions = load_transactions(runs)
    start = transactions["event_time"].iloc[-num_rows:].iloc[0].floor("D")
    kept = transactions[transactions["event_time"] >= start]
    folder = open_feature_store(runs).folder
    (sample / OFFLINE_FOLDER).mkdir(parents=True)
    shutil.copy(folder / "registry.db", sample)
    for name in HISTORY_VIEWS:
        table = Path(OFFLINE_FOLDER) / f"{name}.parquet"
        if (folder / table).is_file():
            rows = pq.read_table(folder / table, filters=[("event_time", ">=", start)])
            pq.write_table(rows, sample / table)
    kept.to_parquet(transactions_path(sample), index=False)
    return len(kept)


def _measure(runs: Path, sample: Path | None, *, store: Store, answers: Path) -> dict[str, float]:
    """Measure one join in a process of its own, behind a progress bar."""
    rows = "every row" if sample is None else "the sample"
    with show_progress(f"Joining {rows} with {_name(store)}"):
        return measure_in_a_process(
            measure_join, runs=runs, sample=sample, offline_store=store, answers=answers
        )


def measure_join(
    *, runs: Path, sample: Path | None, offline_store: Store, answers: Path
) -> dict[str, float]:
    """Join once and keep the answers; loading the transactions is not timed.

    Args:
        runs: Holds the transactions and the feature store.
        sample: Holds a cut of both; ``None`` for the whole history.
        offline_store: What joins.
        answers: Where the joined rows go, as Parquet.

    Returns:
        ``rows`` asked, ``seconds`` from transactions to a frame of features, ``rows_per_second``.
    """
    store = open_feature_store(runs)
    store = replace(store, feast=_connect(sample or store.folder, offline_store))
    transactions = load_transactions(sample or runs)
    join = read_training_features if offline_store == OURS else _join_with_stock
    started = time.perf_counter()
    joined = join(store, transactions)
    seconds = time.perf_counter() - started
    joined.to_parquet(answers)
    num_rows = len(transactions)
    return {"rows": num_rows, "seconds": seconds, "rows_per_second": num_rows / seconds}


def _join_with_stock(store: FraudFeatureStore, transactions: pd.DataFrame) -> pd.DataFrame:
    """Ask Feast for the training service; its ``file`` store sorts rows by time and drops some."""
    rows = make_entity_rows(transactions).assign(transaction_id=transactions["transaction_id"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dask, in Feast's own code
        job = store.feast.get_historical_features(entity_df=rows, features=store.training_service)
        joined: pd.DataFrame = job.to_df()
    return joined[["transaction_id", *store.features.computed]]


def _connect(folder: Path, offline_store: Store) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="throughline_fraud",
            provider="local",
            repo_path=folder.resolve(),
            registry=RegistryConfig(path=str(folder.resolve() / "registry.db")),
            offline_store={"type": offline_store},
            entity_key_serialization_version=3,
        )
    )


def compare_answers(ours: pd.DataFrame, stock: pd.DataFrame) -> dict[str, float]:
    """Compare the features of the rows that both stores returned.

    Args:
        ours: ``transaction_id`` and features, one row per transaction asked.
        stock: The same for those the other store did not drop, in any order.

    Returns:
        ``compared_rows``, ``dropped_rows`` (not in ``stock``), ``features``, the largest absolute
        difference where both have a value, and ``missing_mismatches``: values only one has.

    >>> ours = pd.DataFrame({"transaction_id": ["a", "b"], "x": [1.0, np.nan]})
    >>> compare_answers(ours, ours.iloc[::-1])["max_abs_difference"]
    0.0
    """
    names = [name for name in stock if name != "transaction_id"]
    mine = ours.set_index("transaction_id").loc[stock["transaction_id"], names].to_numpy(np.float64)
    theirs = stock[names].to_numpy(np.float64)
    return {
        "compared_rows": len(stock),
        "dropped_rows": len(ours) - len(stock),
        "features": len(names),
        "max_abs_difference": float(np.nanmax(np.abs(mine - theirs), initial=0.0)),
        "missing_mismatches": int((np.isnan(mine) != np.isnan(theirs)).sum()),
    }


def _name(store: Store) -> str:
    return "throughline" if store == OURS else "Feast's file store"


def _summarise(
    whole: dict[str, float],
    ours: dict[str, float],
    stock: dict[str, float],
    equality: dict[str, float],
) -> dict[str, Any]:
    ratios = {
        "speedup_over_stock": stock["seconds"] / ours["seconds"],
        "memory_share_of_stock": ours["peak_memory_gb"] / stock["peak_memory_gb"],
    }
    is_full = whole["rows"] >= FULL_ROWS
    return build_benchmark(
        [
            {"name": f"{_name(OURS)}, whole history", **whole},
            {"name": f"{_name(OURS)}, sample", **ours, **ratios},
            {"name": f"{_name(STOCK)}, sample", **stock, **equality},
        ],
        [
            Target("seconds", whole["seconds"] if is_full else None, 20, "at_most"),
            Target("peak_memory_gb", whole["peak_memory_gb"] if is_full else None, 4, "at_most"),
            Target("max_abs_difference", equality["max_abs_difference"], 1e-9, "at_most"),
            Target("missing_mismatches", equality["missing_mismatches"], 0, "at_most"),
        ],
    )
