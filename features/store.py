"""A feature store on disk becomes features: of past transactions, and of those being scored.

All of Feast lives in ``<runs>/feature_store``: the registry, the SQLite online store, and the
parquet tables below ``offline``; ``features.store_build`` writes it, nothing here does. A training
row and a served row have the same columns in the same order, so one model reads both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureService, FeatureStore
from feast.repo_config import RegistryConfig, RepoConfig

from configs.files import read_json
from data.fraud import load_summary, summary_path
from features.connections import connect_states, make_feast_connection_string
from features.definitions import (
    HISTORY_VIEWS,
    SERVING_SERVICE,
    TRAINING_SERVICE,
)
from features.fraud_history import to_microseconds
from features.fraud_online import make_requests
from features.fraud_selection import FeatureSet
from features.fraud_state import STATE_KEYS
from features.state_store import StateStore, StoreEmptyError

STAMP = "features.json"
REDIS_VARIABLE = "THROUGHLINE_REDIS_URL"
"""Environment variable: where the Redis that was filled is to be found from here."""
LOG_REDIS_VARIABLE = "THROUGHLINE_LOG_REDIS_URL"
"""Environment variable: the same for the Redis of the stream's log, if it has one of its own."""


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
        log_redis_url: Where the log of the stream that feeds it is; ``None`` for files.
        states: The same online half, past the SDK.
        build: Name of this build; a store built anew has another.
    """

    feast: FeatureStore
    features: FeatureSet
    built_as_of: pd.Timestamp
    training_service: FeatureService
    serving_service: FeatureService
    redis_url: str | None
    log_redis_url: str | None
    states: StateStore
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


def get_archive_folder(runs: Path) -> Path:
    """Return where the stream's archives are, one per build of the store."""
    return runs / "stream" / "archive"


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
    if hash_data(runs) not in (None, document["data"]):
        raise ValueError(
            f"the features in {stamp.parent} were built from other transactions than {runs} holds;"
            " run `throughline fraud features`"
        )
    redis_url = document["redis_url"] and os.environ.get(REDIS_VARIABLE, document["redis_url"])
    log_redis_url = os.environ.get(LOG_REDIS_VARIABLE) or document.get("log_redis_url")
    feast = connect_feast(stamp.parent, redis_url=redis_url)
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
        log_redis_url=redis_url and (log_redis_url or redis_url),
        states=connect_states(stamp.parent, redis_url),
        build=document["build"],
    )


def read_build(runs: Path) -> str:
    """Read the name of the build that is in place now.

    Raises:
        FileNotFoundError: If there is none, or it is being replaced this instant.
    """
    return str(read_json(get_stamp_file(runs))["build"])


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

    Raises:
        StoreEmptyError: If the online store was flushed, or is being rebuilt.
    """
    rows: dict[str, list[Any]] = {
        key: transactions[key].fillna("").tolist()
        for key in _state_join_keys()
        if key in transactions
    }
    rows |= {name: column.tolist() for name, column in make_requests(transactions).items()}
    found = store.feast.get_online_features(features=store.serving_service, entity_rows=rows)
    if not store.states.is_whole():  # to Feast a lost customer looks like a new one
        raise StoreEmptyError
    return _assemble(transactions, store.features, found.to_dict())


def connect_feast(folder: Path, *, redis_url: str | None) -> FeatureStore:
    """Connect to the Feast store in ``folder``, made if absent."""
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


def hash_data(runs: Path) -> str | None:
    """Return the hash of the transactions in ``runs``, or ``None`` where no data stage ran."""
    if not summary_path(runs).is_file():
        return None
    return str(load_summary(runs)["sha256"]["transactions.parquet"])


def _state_join_keys() -> list[str]:
    return list(dict.fromkeys(STATE_KEYS.values()))


def _join_keys() -> list[str]:
    return list(dict.fromkeys(key for keys in HISTORY_VIEWS.values() for key in keys))


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
