"""A simulated world that ends today becomes all that ``throughline bench pipeline`` runs on.

Data, a feature store whose online half is in a Redis of the bench's own, another Redis for the log,
a champion; and the transactions still to come: past ones made again now, so that they keep the
world's own skew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from configs.sections import StackSection, WorldSize
from data.fraud import run_data
from features.redis_server import start_redis
from features.store import LOG_REDIS_VARIABLE, REDIS_VARIABLE
from features.store_build import run_features
from serving.client import build_messages

SIZE = "pipeline"
HISTORY_DAYS = 70
"""Enough for windows of 30 days, and for a champion."""
TRAINING = {"warm_up_days": 10, "train_days": 30, "num_folds": 1, "num_bootstrap": 10}
NO_CEILING = {
    "max_average_precision": 1.0,
    "max_feature_importance_share": 1.0,
    "max_shuffled_auc_deviation": 0.5,
}
"""The bench asks how fast the champion's answers come, not how good they are."""


@contextmanager
def build_pipeline_world(
    config: FraudConfig,
    folder: Path,
    *,
    customers: int,
    merchants: int,
    workers: int,
    processors: int,
    train: Callable[[FraudConfig], object],
) -> Iterator[FraudConfig]:
    """Simulate, build the features in Redis, train; both Redis run as long as the block.

    Args:
        config: What is not decided here.
        folder: Empty; everything goes there.
        customers: Of the world.
        merchants: Of the world.
        workers: Of the service.
        processors: Of the stream; each gets one partition.
        train: Trains the champion of a folder.

    Yields:
        The configuration of the service and of the stream processors.

    Raises:
        FileNotFoundError: If ``redis-server`` is not installed.
    """
    with (
        start_redis(folder / "redis", is_durable=False) as url,
        start_redis(folder / "redis_log") as log_url,
        _forget_other_redis(),
    ):
        size = WorldSize(num_customers=customers, num_merchants=merchants, num_days=HISTORY_DAYS)
        stack = StackSection(redis_url=url, log_redis_url=log_url)
        config = _adapt(
            config, folder / "runs", stack, size=size, workers=workers, processors=processors
        )
        run_data(config)
        run_features(config, as_of=pd.Timestamp.now("UTC"))
        train(config)
        yield config


def _adapt(
    config: FraudConfig,
    runs: Path,
    stack: StackSection,
    *,
    size: WorldSize,
    workers: int,
    processors: int,
) -> FraudConfig:
    today = pd.Timestamp.now("UTC").normalize()
    leaks = config.training.leaks.model_copy(update=NO_CEILING)
    return config.model_copy(
        update={
            "runs": runs,
            "profile": "stack",
            "stack": stack,
            "data": config.data.model_copy(
                update={
                    "start_time": (today - pd.Timedelta(days=HISTORY_DAYS)).to_pydatetime(),
                    "size": SIZE,
                    "sizes": {SIZE: size},
                    "changes": (),
                }
            ),
            "stream": config.stream.model_copy(update={"num_partitions": processors}),
            "training": config.training.model_copy(update={**TRAINING, "leaks": leaks}),
            "serving": config.serving.model_copy(
                update={"workers": workers, "publish_scored": True}
            ),
        }
    )


@contextmanager
def _forget_other_redis() -> Iterator[None]:
    """Have every process of the bench find the bench's own Redis."""
    variables = (REDIS_VARIABLE, LOG_REDIS_VARIABLE)
    before = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def draw_coming(
    history: pd.DataFrame, *, rate: float, num_rows: int, seed: int, id_prefix: str
) -> pd.DataFrame:
    """Draw the transactions of the next seconds: past ones made again, one every ``1 / rate`` s.

    Args:
        history: In the contract's columns.
        rate: Transactions a second.
        num_rows: How many.
        seed: Of the draw.
        id_prefix: What their ids begin with.

    Returns:
        Transactions in time order from this instant on, with ids ``<id_prefix>0`` and so on.
    """
    generator = np.random.default_rng(seed)
    drawn = history.iloc[generator.integers(len(history), size=num_rows)].reset_index(drop=True)
    seconds = np.arange(num_rows) / rate
    offsets = pd.to_timedelta(np.rint(seconds * 1e6).astype(np.int64), unit="us")
    return drawn.assign(
        transaction_id=[f"{id_prefix}{number}" for number in range(num_rows)],
        event_time=(pd.Timestamp.now("UTC").floor("us") + offsets).as_unit("us"),
    )


def render_transactions(transactions: pd.DataFrame) -> list[bytes]:
    """Render each transaction as a body of ``/v1/score``, in the same order."""
    return [msgspec.json.encode(message) for message in build_messages(transactions)]
