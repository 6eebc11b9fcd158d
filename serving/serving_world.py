"""A runs folder becomes what every service of ``throughline bench serving`` needs, made once.

Data, a feature store whose online half is in a Redis of the bench's own, a champion; and requests
with the scores the champion gives them, computed here, past every service, with Feast's SDK.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from data.fraud import load_transactions, run_data
from features.redis_server import start_redis
from features.store import (
    REDIS_VARIABLE,
    FraudFeatureStore,
    get_stamp_file,
    open_feature_store,
    read_online_features,
)
from features.store_build import run_features
from serving.load_messages import draw_messages
from serving.peers import Request
from serving.prediction_log import get_prediction_folder
from training.artefact import load_artefact
from training.encoding import Floats
from training.registry import find_version, get_champion

SCORED_ROWS = 500
"""Rows whose features are read in one call: Feast takes a tenth of a second for them."""


@dataclass(frozen=True)
class ServingWorld:
    """What the services are started on and asked.

    Attributes:
        config: Of all of them; its Redis runs.
        model_folder: The champion as MLflow logged it.
        requests: Transactions of the hour after the store's instant.
        scores: What the champion gives them. Shape ``(requests,)``.
    """

    config: FraudConfig
    model_folder: Path
    requests: tuple[Request, ...]
    scores: Floats


@contextmanager
def prepare_world(
    config: FraudConfig, *, train: Callable[[FraudConfig], object], num_requests: int
) -> Iterator[ServingWorld]:
    """Start Redis, make what the folder lacks, draw the requests.

    Args:
        config: ``runs`` is the bench's own folder; ``profile`` is taken as ``stack``.
        train: Trains a champion for a folder that has none.
        num_requests: How many different transactions are sent.

    Yields:
        The world; what services write to its prediction log is removed at the end, unless there
        was one before.

    Raises:
        ValueError: If the folder's feature store has its online half in a file.
        FileNotFoundError: If ``redis-server`` is not installed.
    """
    log_folder = get_prediction_folder(config.runs)
    had_log = log_folder.exists()
    with start_redis(config.runs / "redis") as url, _tell_redis(url):
        stack = config.stack.model_copy(update={"redis_url": url})
        config = config.model_copy(update={"profile": "stack", "stack": stack})
        store = _open_store(config)
        if find_version(config.runs, "champion") is None:
            train(config)
        try:
            yield _draw_requests(config, store, num_requests=num_requests)
        finally:
            if not had_log:
                shutil.rmtree(log_folder, ignore_errors=True)


@contextmanager
def _tell_redis(url: str) -> Iterator[None]:
    """Let this process and those it starts find the store's Redis, wherever it was before."""
    before = os.environ.get(REDIS_VARIABLE)
    os.environ[REDIS_VARIABLE] = url
    try:
        yield
    finally:
        os.environ.pop(REDIS_VARIABLE)
        if before is not None:
            os.environ[REDIS_VARIABLE] = before


def _open_store(config: FraudConfig) -> FraudFeatureStore:
    """Open the store of ``runs``, built if there is none or its Redis lost it."""
    if not (config.runs / "transactions.parquet").is_file():
        run_data(config)
    if get_stamp_file(config.runs).is_file():
        store = open_feature_store(config.runs)
        if store.redis_url is None:
            raise ValueError(
                f"{config.runs} serves from a file and the bench from Redis; give it a folder of "
                "its own with --runs"
            )
        if store.states.is_whole():
            return store
    run_features(config)
    return open_feature_store(config.runs)


def _draw_requests(
    config: FraudConfig, store: FraudFeatureStore, *, num_requests: int
) -> ServingWorld:
    messages = draw_messages(
        load_transactions(config.runs),
        num_messages=num_requests,
        seed=config.seed,
        now=store.built_as_of,
    )
    rows = pd.DataFrame(messages)
    rows["event_time"] = pd.to_datetime(rows["event_time"], utc=True, format="ISO8601")
    parts = [rows.iloc[start : start + SCORED_ROWS] for start in range(0, len(rows), SCORED_ROWS)]
    features = pd.concat([read_online_features(store, part) for part in parts], ignore_index=True)
    version, folder = get_champion(config.runs)
    artefact = load_artefact(folder, version=version)
    inputs = features[list(artefact.features)].astype(object)
    known = inputs.where(inputs.notna(), None)
    return ServingWorld(
        config=config,
        model_folder=folder.parent.parent,
        requests=tuple(
            Request(message, dict(zip(known.columns, values, strict=True)))
            for message, values in zip(messages, known.to_numpy().tolist(), strict=True)
        ),
        scores=np.asarray(artefact.predict(features)),
    )
