"""The loop over real parts: a trained world, its log, MLflow, the audit; the service is played.

What a service would have logged is written by the test: each row by who would have answered it.
"""

import json

import numpy as np
import pandas as pd
import pytest

from configs.schema import load_fraud_config
from data.fraud import load_transactions, run_data
from features.fraud_history import to_microseconds
from features.fraud_selection import FeatureSet
from features.store import open_feature_store, read_training_features
from features.store_build import run_features
from monitoring.loop_machine import advance_loop
from monitoring.loop_wiring import KEY_TAG, build_parts, train_challenger
from serving.prediction_log import PredictionLog, ScoredBatch, get_prediction_folder
from serving.server import get_service_folder
from training.artefact import load_artefact
from training.fraud import run_train
from training.registry import (
    find_artefact,
    find_tagged_version,
    find_version,
    get_champion,
    get_rollout,
)

WORLD = {
    "data.size": "small",
    "data.sizes.small": {"num_customers": 300, "num_merchants": 120, "num_days": 100},
    "training.warm_up_days": 15,
    "training.num_folds": 1,
    "training.num_bootstrap": 50,
    "training.leaks.max_average_precision": 1.0,
    "training.leaks.max_feature_importance_share": 1.0,
    "training.leaks.max_shuffled_auc_deviation": 0.5,
    "monitoring.min_matured_frauds": 5,
    "retraining.floor_days": 7,
    "retraining.min_new_frauds": 1,
    "rollout.gate": False,
    "rollout.shadow_days": 1,
    "rollout.canary_shares": [0.5],
    "rollout.canary_days": 1,
    "rollout.watch_days": 1,
}
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    runs = tmp_path_factory.mktemp("looped") / "runs"
    config = load_fraud_config(changes={**WORLD, "runs": str(runs)})
    run_data(config, world="simulated", transactions=None, mapping=None)
    run_features(config)
    run_train(config, now=at(config, 74), only="logistic_regression")
    return config


def at(config, day: float) -> pd.Timestamp:
    return pd.Timestamp(config.data.start_time) + day * DAY


@pytest.fixture(scope="module")
def features(config) -> pd.DataFrame:
    history = load_transactions(config.runs)
    recent = history[history["event_time"] >= at(config, 74)]
    rows = read_training_features(open_feature_store(config.runs), recent)
    known = recent.set_index("transaction_id")[["customer_id", "amount"]]
    return rows.drop(columns=list(known), errors="ignore").join(known, on="transaction_id")


def log(config, rows: pd.DataFrame, *, version: str, arm: str, decisions=None) -> None:
    """Write what a version says to rows into the prediction log."""
    model = load_artefact(find_artefact(config.runs, version), version=version)
    served = rows[list(model.features)]
    categorical = tuple(model.spec.encoding.vocabularies)
    feature_set = FeatureSet(tuple(served.columns), categorical=categorical, dropped={})
    scores, amounts = model.predict(rows), rows["amount"].to_numpy(np.float64)
    batch = ScoredBatch(
        prediction_time_us=1_793_491_200_000_000,
        model_version=version,
        arm=arm,
        transaction_ids=rows["transaction_id"].tolist(),
        event_times_us=to_microseconds(rows["event_time"]),
        amounts=amounts,
        features=served[list(feature_set.numeric)].to_numpy(np.float64),
        categories=[served[name].tolist() for name in categorical],
        scores=scores,
        decisions=decisions or model.decide(scores, amounts).tolist(),
        degraded_reasons=[None] * len(rows),
        latency_ms=np.ones(len(rows)),
    )
    folder = get_prediction_folder(config.runs)
    folder.mkdir(exist_ok=True)
    written = PredictionLog(folder, feature_set=feature_set, flush_seconds=3600, max_pending=10**9)
    written.append(batch)
    written.close()


def serve(config, features: pd.DataFrame, first: float, last: float, *, decisions=None) -> None:
    """Answer from one day to another as the registry says who does."""
    is_inside = features["event_time"].between(
        at(config, first), at(config, last), inclusive="neither"
    )
    rows, rollout = features[is_inside], get_rollout(config.runs)
    champion, _ = get_champion(config.runs)
    is_canary = rows["customer_id"].map(
        lambda customer: rollout is not None and rollout.has(customer)
    )
    log(config, rows[~is_canary], version=champion, arm="champion")
    if rollout is None:
        return
    own, arm = (rows, "shadow") if rollout.stage == "shadow" else (rows[is_canary], "challenger")
    said = [decisions] * len(own) if decisions else None
    log(config, own, version=rollout.version, arm=arm, decisions=said)


def test_a_challenger_is_trained_shadowed_tried_and_promoted_and_a_bad_one_taken_away(
    config, features
):
    trainings = []

    def train(config, **asked):
        trainings.append(asked)
        return run_train(config, **asked)

    parts = build_parts(train)

    def tick(day: float) -> dict:
        return advance_loop(config, now=at(config, day), parts=parts)

    serve(config, features, 75, 82)
    first = tick(82)
    assert (first["decision"]["trigger"], first["rollout"]) == ("floor", "2 shadow 0.0"), first
    serve(config, features, 82, 83)
    second = tick(83)
    assert second["rollout"] == "2 canary 0.5", second
    serve(config, features, 83, 84)
    assert tick(84)["champion"] == "2"
    assert get_champion(config.runs)[0] == "2"
    audit = (get_service_folder(config.runs) / "admin.jsonl").read_text().splitlines()
    assert json.loads(audit[-1])["who"].startswith("tick (floor:v1:")

    key = first["decision"]["key"]
    assert find_tagged_version(config.runs, KEY_TAG, key) == "2"
    assert train_challenger(config, at(config, 82), key, train=train) == "2"
    assert len(trainings) == 1
    answered = features[features["event_time"].between(at(config, 75), at(config, 82), "neither")]
    assert set(trainings[0]["outcome_shares"].index) == set(answered["transaction_id"])

    serve(config, features, 84, 92)
    third = tick(92)
    assert third["rollout"] == "3 shadow 0.0", third
    serve(config, features, 92, 92.9, decisions="decline")
    last = tick(92.9)
    assert (last["champion"], last["rollout"]) == ("2", None), last["transitions"]
    assert last["transitions"][-1]["to_state"] == "rolled_back"
    assert any("the share declined" in reason for reason in last["transitions"][-1]["reasons"])
    assert find_version(config.runs, "previous") == "1"
