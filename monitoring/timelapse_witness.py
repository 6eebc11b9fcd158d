"""Some days are served a second time, by everything real, and held against the time-lapse's.

The time-lapse takes short cuts: features come from history at once, models are fitted without the
stage around it, whole days are scored in one call. Here the training stage trains and registers,
BentoML serves over HTTP, the stream updates the online store hour by hour and the prediction log is
a file; what comes out must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from features.fraud_stream import connect_stream
from features.store import open_feature_store
from monitoring.timelapse_models import TrainedModel
from monitoring.timelapse_worlds import DAY, World
from serving.prediction_log import get_prediction_folder, load_predictions
from serving.replay import replay_history
from serving.server import find_free_port, start_service

Train = Callable[..., dict[str, Any]]
"""``training.fraud.run_train``: injected, since nothing here imports a problem's training."""


def serve_again(
    config: FraudConfig,
    world: World,
    model: TrainedModel,
    *,
    train: Train,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Serve the first ``timelapse.witness_days`` again, by the real service.

    Args:
        config: Of the world; ``runs`` holds its data and its feature store.
        world: The history.
        model: The time-lapse's first champion.
        train: The training stage.
        parameters: What both models are fitted with.

    Returns:
        ``days``, ``rows``, ``features``, ``max_feature_difference`` (NaN counts as equal to NaN,
        and as infinitely far from a number), ``max_score_difference`` and ``degraded`` (answers
        given without the online store).
    """
    days = config.timelapse.witness_days
    train(config, now=world.first_time, only=model.artefact.spec.kind, params=dict(parameters))
    store = open_feature_store(config.runs)
    with start_service(config, port=find_free_port(config.serving.host)) as url:
        replay_history(
            url,
            stream=connect_stream(config.runs, store, config.stream),
            transactions=world.transactions,
            labels=world.labels,
            since=world.first_time,
            until=world.first_time + days * DAY,
        )
    predictions, served = load_predictions(get_prediction_folder(config.runs))
    first, last = (int(place) for place in world.day_starts[[0, days]])
    asked = pd.Index(world.transactions["transaction_id"].iloc[first:last])
    order = pd.Index(predictions["transaction_id"]).get_indexer(asked)
    assert (order >= 0).all(), "every transaction was answered and logged"
    names = [name for name in model.artefact.features if name not in world.feature_set.categorical]
    ours = world.features[names].iloc[first:last].to_numpy(np.float64)
    theirs = served[names].iloc[order].to_numpy(np.float64)
    is_missing = np.isnan(ours)
    difference = np.where(is_missing, 0.0, np.abs(ours - theirs))
    difference[is_missing != np.isnan(theirs)] = np.inf
    scores = predictions["score"].iloc[order].to_numpy(np.float64)
    return {
        "days": days,
        "rows": len(order),
        "features": len(names),
        "max_feature_difference": float(difference.max()),
        "max_score_difference": float(np.abs(scores - model.score_days(0, days)).max()),
        "degraded": int(predictions["degraded_reason"].notna().sum()),
    }
