"""Validated transactions become a feature store: history to train on, states to serve from."""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureStore

from configs.files import write_json, write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from features.connections import connect_states
from features.definitions import (
    HISTORY_VIEWS,
    OFFLINE_FOLDER,
    build_entities,
    build_history_views,
    build_services,
    build_state_views,
)
from features.fraud_history import compute_history
from features.fraud_selection import FeatureSet, select_features
from features.state_merge import build_states, list_states
from features.store import (
    STAMP,
    FraudFeatureStore,
    connect_feast,
    get_archive_folder,
    get_store_folder,
    hash_data,
    open_feature_store,
)
from features.stream_archive import join_transactions, load_earlier


def run_features(config: FraudConfig, *, as_of: pd.Timestamp | None = None) -> dict[str, Any]:
    """Run the stage: compute, register, materialise.

    Args:
        config: Says where ``runs`` is.
        as_of: The instant the online store is for; by default just after the last transaction.

    Returns:
        Feature names, what was dropped and why, rows per table, ``wrote`` and ``next``.
    """
    transactions, labels = load_transactions(config.runs), load_labels(config.runs)
    streamed = load_earlier(get_archive_folder(config.runs))
    newest = [part["event_time"].max() for part in (transactions, streamed) if not part.empty]
    last = max(newest) + pd.Timedelta(microseconds=1)
    with show_progress("Computing windows"):
        store = build_feature_store(
            config.runs,
            transactions,
            labels,
            as_of=as_of or last,
            redis_url=config.redis_url,
            log_redis_url=config.log_redis_url,
            streamed=streamed,
        )
    return {
        "features": list(store.features.names),
        "dropped": store.features.dropped,
        "transactions": len(transactions),
        "as_of": str(as_of or last),
        "wrote": [str(get_store_folder(config.runs))],
        "next": "throughline fraud train",
    }


def build_feature_store(
    runs: Path,
    transactions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    as_of: pd.Timestamp,
    redis_url: str | None = None,
    log_redis_url: str | None = None,
    streamed: pd.DataFrame | None = None,
) -> FraudFeatureStore:
    """Compute all window tables, write them, register every Feast object, fill the online store.

    The store is built beside its place and moved there when it is whole, so an interrupted build
    leaves the store before it as it was; in Redis it leaves one that says it is empty.

    Args:
        runs: Output folder; the feature store in it is replaced.
        transactions: In the contract's columns, sorted by ``event_time``.
        labels: ``transaction_id, is_fraud, label_time``.
        as_of: The instant the online store is for, UTC.
        redis_url: Redis to keep the online half in, instead of a SQLite file. It is written in
            place; until that is done, reading from it is an error.
        log_redis_url: Redis that keeps the stream's log, where it is another one; written down
            here, so that publishers and processors of this store find the same log.
        streamed: What the stream has accepted beside the history; the online half knows it too.

    Returns:
        The opened store.

    Raises:
        ValueError: If a column outside the contract has the name of a feature.
    """
    features = select_features(transactions)
    folder, place = runs / "feature_store.part", get_store_folder(runs)
    shutil.rmtree(folder, ignore_errors=True)
    tables = compute_history(transactions, labels)
    for name, table in tables.items():
        _write_table(folder, name, table)
    for state in list_states(transactions):
        empty = build_states(transactions.head(0), labels.head(0), state)
        _write_table(folder, f"{state}_state", empty.drop(columns="event_time_us"))
    feast = connect_feast(folder, redis_url=redis_url)
    _register(feast, tables, transactions, features)
    states = connect_states(folder, redis_url)
    states.clear()
    known = transactions
    if streamed is not None:
        known = join_transactions(transactions, streamed)[[*transactions.columns]]
    _materialise(feast, known, labels, as_of=as_of)
    write_json(
        folder / STAMP,
        {
            "names": features.names,
            "categorical": features.categorical,
            "dropped": features.dropped,
            "as_of": as_of.isoformat(),
            "data": hash_data(runs),
            "redis_url": redis_url,
            "log_redis_url": log_redis_url,
            "build": f"{as_of:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        },
    )
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)
    # Last: a processor goes on at once, and asks the stamp for the name of the build.
    connect_states(place, redis_url).mark_whole()
    return open_feature_store(runs)


def _register(
    feast: FeatureStore,
    tables: Mapping[str, pd.DataFrame],
    transactions: pd.DataFrame,
    features: FeatureSet,
) -> None:
    """Apply every Feast object these tables and columns call for."""
    entities = build_entities(transactions.columns)
    values = {
        name: [str(column) for column in table.columns.drop([*HISTORY_VIEWS[name], "event_time"])]
        for name, table in tables.items()
    }
    history_views = build_history_views(values, entities)
    state_views = build_state_views(entities)
    services = build_services(features, transactions.columns, history_views, state_views)
    with warnings.catch_warnings():  # Feast calls on-demand views experimental at each apply
        warnings.filterwarnings("ignore", "On demand feature view", RuntimeWarning)
        feast.apply([*entities.values(), *history_views, *state_views, *services])


def materialise(
    store: FraudFeatureStore,
    transactions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    as_of: pd.Timestamp,
) -> None:
    """Write every entity's state as of an instant to the online store.

    Args:
        store: From ``open_feature_store``.
        transactions: The history; rows at or after ``as_of`` are left out.
        labels: Those that had not arrived by ``as_of`` are left out.
        as_of: UTC.
    """
    _materialise(store.feast, transactions, labels, as_of=as_of)


def _materialise(
    feast: FeatureStore, transactions: pd.DataFrame, labels: pd.DataFrame, *, as_of: pd.Timestamp
) -> None:
    known = transactions[transactions["event_time"] < as_of]
    arrived = labels[labels["label_time"] < as_of]
    names = [f"{state}_state" for state in list_states(transactions)]
    for state in list_states(transactions):
        states = build_states(known, arrived, state).drop(columns="event_time_us")
        _write_table(
            Path(feast.config.repo_path), f"{state}_state", states.assign(event_time=as_of)
        )
    instant = as_of.to_pydatetime()
    with redirect_stdout(StringIO()):  # Feast reports on standard output, which is for results
        feast.materialize(instant - timedelta(seconds=1), instant, feature_views=names)


def _write_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    with write_whole(folder / OFFLINE_FOLDER / f"{name}.parquet") as part:
        table.to_parquet(part, index=False, coerce_timestamps="us")
