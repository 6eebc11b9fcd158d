"""A small trained world, built once per session by the stages a user would run."""

from __future__ import annotations

import pytest

from configs.schema import FraudConfig, load_fraud_config
from data.fraud import run_data
from features.store import run_features
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
