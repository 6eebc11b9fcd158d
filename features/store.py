"""Validated transactions become a feature store: history to train on, states to serve from.

All of Feast lives in ``<runs>/feature_store``: the registry, the SQLite online store, and the
parquet tables below ``offline``. Opening it only reads; ``build_feature_store`` and ``materialise``
write. A training row and a served row have the same columns in the same order, so one model reads
both.
"""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureService, FeatureStore
from feast.repo_config import RegistryConfig, RepoConfig

from configs.files import read_json, write_json, write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_summary, load_transactions, summary_path
from features.connections import connect_states, make_feast_connection_string
from features.definitions import (
    HISTORY_VIEWS,
    OFFLINE_FOLDER,
    SERVING_SERVICE,
    TRAINING_SERVICE,
    build_entities,
    build_history_views,
    build_services,
    build_state_views,
)
from features.fraud_history import compute_history, to_microseconds
from features.fraud_online import make_requests
from features.fraud_selection import FeatureSet, select_features
from features.fraud_state import EVENT_STATES, STATE_KEYS
from features.state_merge import build_event_states, build_label_states

STAMP = "features.json"
REDIS_VARIABLE = "THROUGHLINE_REDIS_URL"
"""Environment variable: where the Redis that was filled is to be found from here."""


@dataclass(frozen=True)
class FraudFeatureStore:
    """An opened feature store; the services are held because Feast parses them at each look-up.

    Attributes:
        feast: The Feast store itself.
        features: Which features it holds, in the model's order.
        built_as_of: The instant its online half was built for, UTC.
        training_service: Point-in-time history.
        serving_service: Windows derived from states at the request's time.
        redis_url: Where its online half is; ``None`` for the SQLite file beside the registry.
        build: Name of this build; a store built anew has another.
    """

    feast: FeatureStore
    features: FeatureSet
    built_as_of: pd.Timestamp
    training_service: FeatureService
    serving_service: FeatureService
    redis_url: str | None
    build: str

    @property
    def folder(self) -> Path:
        """Where the registry, the online store and the parquet tables live."""
        return Path(self.feast.config.repo_path)


def get_store_folder(runs: Path) -> Path:
    """Return where the feature store of ``runs`` lives."""
    return runs / "feature_store"


def get_stamp_file(runs: Path) -> Path:
    """Return the file that is written last when a store is built: with it, the store is whole."""
    return get_store_folder(runs) / STAMP


def open_feature_store(runs: Path) -> FraudFeatureStore:
    """Open the feature store that ``throughline fraud features`` built.

    Raises:
        FileNotFoundError: If it was not built yet.
        ValueError: If it was built from other transactions than ``runs`` now holds.
    """
    stamp = get_stamp_file(runs)
    if not stamp.is_file():
        raise FileNotFoundError(
            f"no feature store in {stamp.parent}; run `throughline fraud features`"
        )
    document = read_json(stamp)
    if _hash_data(runs) not in (None, document["data"]):
        raise ValueError(
            f"the features in {stamp.parent} were built from other transactions than {runs} holds;"
            " run `throughline fraud features`"
        )
    redis_url = document["redis_url"] and os.environ.get(REDIS_VARIABLE, document["redis_url"])
    feast = _connect(stamp.parent, redis_url=redis_url)
    return FraudFeatureStore(
        feast=feast,
        features=FeatureSet(
            names=tuple(document["names"]),
            categorical=tuple(document["categorical"]),
            dropped=document["dropped"],
        ),
        built_as_of=pd.Timestamp(document["as_of"]),
        training_service=feast.get_feature_service(TRAINING_SERVICE),
        serving_service=feast.get_feature_service(SERVING_SERVICE),
        redis_url=redis_url,
        build=document["build"],
    )


def read_build(runs: Path) -> str:
    """Read the name of the build that is in place now.

    Raises:
        FileNotFoundError: If there is none, or it is being replaced this instant.
    """
    return str(read_json(get_stamp_file(runs))["build"])


def build_feature_store(
    runs: Path,
    transactions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    as_of: pd.Timestamp,
    redis_url: str | None = None,
) -> FraudFeatureStore:
    """Compute all window tables, write them, register every Feast object, fill the online store.

    The store is built beside its place and moved there when it is whole, so an interrupted build
    leaves the store before it as it was.

    Args:
        runs: Output folder; the feature store in it is replaced.
        transactions: In the contract's columns, sorted by ``event_time``.
        labels: ``transaction_id, is_fraud, label_time``.
        as_of: The instant the online store is for, UTC.
        redis_url: Redis to keep the online half in, instead of a SQLite file. It is written in
            place; until that is done, reading from it is an error.

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
    for state in _states_of(transactions):
        empty = _build_state(transactions.head(0), labels.head(0), state)
        _write_table(folder, f"{state}_state", empty.drop(columns="event_time_us"))
    feast = _connect(folder, redis_url=redis_url)
    _register(feast, tables, transactions, features)
    states = connect_states(folder, redis_url)
    states.clear()
    _materialise(feast, transactions, labels, as_of=as_of)
    write_json(
        folder / STAMP,
        {
            "names": features.names,
            "categorical": features.categorical,
            "dropped": features.dropped,
            "as_of": as_of.isoformat(),
            "data": _hash_data(runs),
            "redis_url": redis_url,
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
    names = [f"{state}_state" for state in _states_of(transactions)]
    for state in _states_of(transactions):
        states = _build_state(known, arrived, state).drop(columns="event_time_us")
        _write_table(
            Path(feast.config.repo_path), f"{state}_state", states.assign(event_time=as_of)
        )
    instant = as_of.to_pydatetime()
    with redirect_stdout(StringIO()):  # Feast reports on standard output, which is for results
        feast.materialize(instant - timedelta(seconds=1), instant, feature_views=names)


def read_training_features(store: FraudFeatureStore, transactions: pd.DataFrame) -> pd.DataFrame:
    """Read the features of past transactions, each as of its own time (point-in-time join).

    Args:
        store: An opened feature store.
        transactions: Rows of the history the store was built from, in the contract's columns.

    Returns:
        ``transaction_id, event_time`` and one column per feature, in the given order.
    """
    rows = make_entity_rows(transactions)
    keys = [key for key in _join_keys() if key in rows]
    rows[keys] = rows[keys].astype("category")  # hashed once, then joined by code
    job = store.feast.get_historical_features(entity_df=rows, features=store.training_service)
    return _assemble(transactions, store.features, job.to_arrow())


def make_entity_rows(transactions: pd.DataFrame) -> pd.DataFrame:
    """Make the rows that Feast joins features to: keys, ``event_timestamp``, request values."""
    keys = [key for key in _join_keys() if key in transactions]
    places = [name for name in ("latitude", "longitude") if name in transactions]
    return transactions[[*keys, "amount", *places]].assign(
        event_timestamp=transactions["event_time"],
        event_time_us=to_microseconds(transactions["event_time"]),
    )


def read_online_features(store: FraudFeatureStore, transactions: pd.DataFrame) -> pd.DataFrame:
    """Read the features of transactions being scored, each as of its own time.

    Args:
        store: An opened feature store with states in it.
        transactions: In the contract's columns; their entities may be unknown.

    Returns:
        The columns and order of ``read_training_features``.
    """
    rows: dict[str, list[Any]] = {
        key: transactions[key].fillna("").tolist()
        for key in _state_join_keys()
        if key in transactions
    }
    rows |= {name: column.tolist() for name, column in make_requests(transactions).items()}
    found = store.feast.get_online_features(features=store.serving_service, entity_rows=rows)
    return _assemble(transactions, store.features, found.to_dict())


def run_features(config: FraudConfig, *, as_of: pd.Timestamp | None = None) -> dict[str, Any]:
    """Run the stage: compute, register, materialise.

    Args:
        config: Says where ``runs`` is.
        as_of: The instant the online store is for; by default just after the last transaction.

    Returns:
        Feature names, what was dropped and why, rows per table, ``wrote`` and ``next``.
    """
    transactions, labels = load_transactions(config.runs), load_labels(config.runs)
    last = transactions["event_time"].iloc[-1] + pd.Timedelta(microseconds=1)
    with show_progress("Computing windows"):
        store = build_feature_store(
            config.runs,
            transactions,
            labels,
            as_of=as_of or last,
            redis_url=config.redis_url,
        )
    return {
        "features": list(store.features.names),
        "dropped": store.features.dropped,
        "transactions": len(transactions),
        "as_of": str(as_of or last),
        "wrote": [str(get_store_folder(config.runs))],
        "next": "throughline fraud train",
    }


def _connect(folder: Path, *, redis_url: str | None) -> FeatureStore:
    folder = folder.resolve()  # Feast would lay a relative path onto the folder a second time
    folder.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project="throughline_fraud",
            provider="local",
            repo_path=folder,
            registry=RegistryConfig(path=str(folder / "registry.db"), cache_ttl_seconds=0),
            online_store={"type": "sqlite", "path": str(folder / "online.db")}
            if redis_url is None
            else {"type": "redis", "connection_string": make_feast_connection_string(redis_url)},
            offline_store={"type": "features.offline_store.AsofOfflineStore"},
            entity_key_serialization_version=3,
        )
    )


def _hash_data(runs: Path) -> str | None:
    """Return the hash of the transactions in ``runs``, or ``None`` where no data stage ran."""
    if not summary_path(runs).is_file():
        return None
    return str(load_summary(runs)["sha256"]["transactions.parquet"])


def _state_join_keys() -> list[str]:
    return list(dict.fromkeys(STATE_KEYS.values()))


def _join_keys() -> list[str]:
    return list(dict.fromkeys(key for keys in HISTORY_VIEWS.values() for key in keys))


def _states_of(transactions: pd.DataFrame) -> list[str]:
    return [state for state, key in STATE_KEYS.items() if key in transactions]


def _build_state(transactions: pd.DataFrame, labels: pd.DataFrame, state: str) -> pd.DataFrame:
    if state in EVENT_STATES:
        return build_event_states(transactions, state)
    return build_label_states(transactions, labels, state)


def _write_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    with write_whole(folder / OFFLINE_FOLDER / f"{name}.parquet") as part:
        table.to_parquet(part, index=False, coerce_timestamps="us")


def _assemble(
    transactions: pd.DataFrame, features: FeatureSet, found: Mapping[str, Any] | pa.Table
) -> pd.DataFrame:
    """Put computed and passed-through features beside the rows' ids, in the model's order."""
    columns: dict[str, Any] = {
        "transaction_id": transactions["transaction_id"].to_numpy(),
        "event_time": transactions["event_time"].array,
    }
    for name in features.names:
        if name in features.computed:
            columns[name] = np.asarray(found[name], dtype=np.float64)
        else:
            columns[name] = transactions[name].to_numpy()
    return pd.DataFrame(columns)
