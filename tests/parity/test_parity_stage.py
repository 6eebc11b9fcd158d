"""``throughline fraud parity`` on a served stretch of a small world: agreement, lag, skew."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import throughline
from configs.schema import load_fraud_config
from data.fraud import load_labels, load_transactions, run_data
from features.fraud_history import to_microseconds
from features.fraud_stream import connect_stream
from features.publish import publish_labels
from features.store import open_feature_store
from features.store_build import run_features
from monitoring.fraud_parity import load_sample, run_parity
from monitoring.parity import check_parity, measure_parity
from serving.prediction_log import (
    PredictionLog,
    ScoredBatch,
    get_prediction_folder,
    load_predictions,
)
from tests.frame_reader import open_frame_reader

TINY = {
    "data.size": "tiny",
    "data.sizes.tiny": {"num_customers": 60, "num_merchants": 30, "num_days": 45},
}


@pytest.fixture(scope="session")
def served_world(tmp_path_factory):
    """The last three days of a small world, streamed and served hour by hour, all in order."""
    runs = tmp_path_factory.mktemp("served") / "runs"
    config = load_fraud_config(changes={**TINY, "runs": str(runs)})
    run_data(config)
    end = load_transactions(runs)["event_time"].iloc[-1]
    run_features(config, as_of=(end - pd.Timedelta(days=3)).floor("D"))
    serve_rest(config)
    return config


def serve_rest(config):
    transactions, labels = load_transactions(config.runs), load_labels(config.runs)
    store = open_feature_store(config.runs)
    stream = connect_stream(config.runs, store, config.stream)
    processor = stream.make_processor()
    log = open_log(config)
    rest = transactions[transactions["event_time"] >= store.built_as_of]
    published_day = None
    with open_frame_reader(store.folder, store.redis_url) as reader:
        for hour, rows in rest.groupby(rest["event_time"].dt.floor("h")):
            if hour.normalize() != published_day:
                published_day = hour.normalize()
                arrived = labels[labels["label_time"] < published_day]
                publish_labels(stream.states, transactions, arrived)
            stream.publish(rows)
            processor.run(until_empty=True)
            log.append(score(store, reader, rows.reset_index(drop=True)))
    log.close()


def open_log(config):
    features = open_feature_store(config.runs).features
    folder = get_prediction_folder(config.runs)
    return PredictionLog(folder, feature_set=features, flush_seconds=3600, max_pending=10**6)


def score(store, reader, rows):
    features = reader.read(rows).assign(card_type=rows["card_type"])
    return build_batch(rows, features, feature_set=store.features)


def build_batch(rows, features, *, feature_set):
    return ScoredBatch(
        prediction_time_us=1_800_000_000_000_000,
        model_version="1",
        arm="champion",
        transaction_ids=rows["transaction_id"].tolist(),
        event_times_us=to_microseconds(rows["event_time"]),
        amounts=rows["amount"].to_numpy(),
        features=features[list(feature_set.numeric)].to_numpy(),
        categories=[features[name].tolist() for name in feature_set.categorical],
        scores=np.full(len(rows), 0.5),
        decisions=["approve"] * len(rows),
        degraded_reasons=[None] * len(rows),
        latency_ms=np.ones(len(rows)),
    )


@pytest.fixture
def own_world(served_world, tmp_path):
    """A copy of the served world that a test may change."""
    shutil.copytree(served_world.runs, tmp_path / "runs")
    return served_world.model_copy(update={"runs": tmp_path / "runs"})


def rewrite_log(config, change):
    """Let ``change`` alter the log's frames, then write them as the service would have."""
    folder = get_prediction_folder(config.runs)
    predictions, features = load_predictions(folder)
    change(predictions, features)
    shutil.rmtree(folder)
    log = open_log(config)
    log.append(build_batch(predictions, features, feature_set=log.feature_set))
    log.close()


def test_what_was_served_is_what_history_gives_in_every_feature(served_world):
    result = run_parity(served_world)
    assert result["agrees"]
    assert result["compared"] == result["predictions"] > 100
    assert result["not_replayable"]["num"] == result["unexplained"] == 0
    assert sum(result["causes"].values()) == 0
    assert result["differing"] == {}
    assert len(result["features"]) == 30  # 28 features, the amount and the time
    assert {Path(path).name for path in result["wrote"]} == {
        "parity.json",
        "parity_mismatches.csv",
    }


def test_a_sample_is_the_same_each_time_and_within_a_larger_one(served_world):
    def sample(num):
        predictions, _ = load_sample(served_world.runs, sample=num)
        return set(predictions["transaction_id"])

    assert sample(20) == sample(20) < sample(40)
    assert len(sample(20)) == 20
    assert run_parity(served_world, sample=20)["compared"] == 20


def test_since_leaves_earlier_transactions_out(served_world):
    last = load_transactions(served_world.runs)["event_time"].iloc[-1]
    assert run_parity(served_world, since=last)["compared"] < 5
    with pytest.raises(FileNotFoundError, match="no predictions"):
        run_parity(served_world, since=last + pd.Timedelta(days=1))


def test_skew_in_a_tenth_of_the_records_ends_with_exit_code_1_and_a_table(
    own_world, monkeypatch, capsys
):
    def to_cents(predictions, features):
        is_chosen = predictions["transaction_id"].str.endswith("7")
        features.loc[is_chosen, "customer_amount_mean_7d"] = 100.5

    rewrite_log(own_world, to_cents)
    arguments = ["fraud", "parity", "--runs", str(own_world.runs)]
    for changed, code in (([], 1), (["--max-mismatch-share=0.5"], 0)):
        monkeypatch.setattr(sys, "argv", ["throughline", *arguments, *changed])
        with pytest.raises(SystemExit) as caught:
            throughline.main()
        assert caught.value.code == code
        assert "customer amount mean 7d" in capsys.readouterr().out
    written = json.loads((own_world.runs / "monitoring" / "parity.json").read_text())
    assert list(written["differing"]) == ["customer_amount_mean_7d"]
    assert written["differing"]["customer_amount_mean_7d"]["unexplained"] == written["unexplained"]
    table = pd.read_csv(own_world.runs / "monitoring" / "parity_mismatches.csv")
    assert table["feature"].unique().tolist() == ["customer_amount_mean_7d"]
    assert table["served"].eq(100.5).all()
    assert table["cause"].isna().all()


def test_predictions_of_transactions_the_stream_never_saw_are_counted_and_named(own_world):
    def rename(predictions, _features):
        is_chosen = predictions["transaction_id"].str.endswith("3")
        predictions.loc[is_chosen, "transaction_id"] = "nobody-knows"

    rewrite_log(own_world, rename)
    result = run_parity(own_world)
    assert result["not_replayable"]["num"] > 0
    assert set(result["not_replayable"]["first"]) == {"nobody-knows"}
    assert result["agrees"]


def test_without_the_streams_archive_nothing_can_be_replayed_and_the_error_says_why(own_world):
    shutil.rmtree(own_world.runs / "stream")
    with pytest.raises(ValueError, match="throughline fraud stream"):
        run_parity(own_world)


def test_the_demos_measure_agrees_and_stops_at_a_difference(own_world):
    store, history = open_feature_store(own_world.runs), load_transactions(own_world.runs)
    parity = measure_parity(own_world.runs, store, history)
    check_parity(parity)
    assert parity["rows"] > 100

    def lose(_predictions, features):
        features["customer_amount_max_30d"] = np.nan

    rewrite_log(own_world, lose)
    with pytest.raises(ValueError, match="missing on one side only"):
        check_parity(measure_parity(own_world.runs, store, history))
