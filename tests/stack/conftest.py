"""A small trained world, built once per session by the stages a user would run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.schema import FraudConfig, load_fraud_config
from data.fraud import load_transactions, run_data
from features.store_build import run_features
from serving.server import find_free_port, start_service
from tests.stack.served_world import ServedWorld, serve_world
from tests.stack.stream_world import Processors, StreamWorld, copy_world, wait_until
from training.fraud import run_train

TINY = {
    "data.size": "tiny",
    "data.sizes.tiny": {"num_customers": 80, "num_merchants": 40, "num_days": 70},
    "training.warm_up_days": 10,
    "training.train_days": 30,
    "training.num_folds": 1,
    "training.num_bootstrap": 10,
    "training.leaks.max_average_precision": 1.0,
    "training.leaks.max_feature_importance_share": 1.0,
    "training.leaks.max_shuffled_auc_deviation": 0.5,
    "serving.model_poll_seconds": 0.2,
    "serving.log_flush_seconds": 0.1,
    "load.num_requests": 60,
    "load.num_connections": 4,
}
TREES = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "lambda_l2": 1.0,
    "num_trees": 30,
}


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> FraudConfig:
    """A configuration whose ``runs`` holds data, a feature store and a champion, version 1."""
    runs = tmp_path_factory.mktemp("tiny_world") / "runs"
    config = load_fraud_config(changes={**TINY, "runs": str(runs)})
    run_data(config)
    run_features(config)
    run_train(config, only="lightgbm", params=TREES)
    return config


@pytest.fixture(scope="session")
def url(tiny_world: FraudConfig) -> Iterator[str]:
    """A service of the small world, for tests that leave it as they found it."""
    with start_service(tiny_world, port=find_free_port()) as started:
        yield started


NUM_COMING = 1500
"""The last transactions of the small world take the stream."""


@pytest.fixture(scope="session")
def stream_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``runs`` folder with a feature store that the last transactions are still to come to."""
    runs = tmp_path_factory.mktemp("stream_source") / "runs"
    config = load_fraud_config(changes={**TINY, "runs": str(runs)})
    run_data(config)
    run_features(config, as_of=load_transactions(runs)["event_time"].iloc[-NUM_COMING])
    return runs


@pytest.fixture(params=["embedded", "stack"])
def world(request: pytest.FixtureRequest, stream_source: Path, tmp_path: Path) -> StreamWorld:
    """The small world, once with files and SQLite and once with Redis."""
    redis_url = request.getfixturevalue("redis_url") if request.param == "stack" else None
    return copy_world(stream_source, tmp_path, redis_url, num_coming=NUM_COMING)


@pytest.fixture
def processors(tmp_path: Path) -> Iterator[Processors]:
    """Starts processors; those alive at the end are killed."""
    started = Processors(tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="session")
def long_served(
    tiny_world: FraudConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedWorld]:
    """The small world served from Redis; for ``served_world``."""
    folder = tmp_path_factory.mktemp("served")
    with serve_world(tiny_world, folder, store_deadline_ms=20.0) as world:
        yield world


@pytest.fixture
def served_world(long_served: ServedWorld) -> Iterator[ServedWorld]:
    """A service on Redis with nothing wrong before the test, and nothing after it."""
    wait_until(long_served.is_whole)
    yield long_served
    long_served.redis.resume()
    long_served.proxy.pass_on()
