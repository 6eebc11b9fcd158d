"""The stage as a whole, on a world small enough to train on three times."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from configs.files import read_json
from configs.schema import load_fraud_config
from data.fraud import load_labels, load_transactions, run_data
from data.fraud_contract import CheckedTransactions
from features.store_build import run_features
from training import fraud_material
from training.artefact import load_artefact, load_reference
from training.encoding import encode_features
from training.fraud import run_train
from training.gbdt import STARTING_PARAMETERS
from training.leakage import LeakAlarm
from training.registry import find_version, get_champion, get_model
from training.scorers import MODEL_FILES

TINY = {
    "data.size": "tiny",
    "data.sizes.tiny": {"num_customers": 150, "num_merchants": 60, "num_days": 90},
    "training.warm_up_days": 10,
    "training.train_days": 45,
    "training.num_folds": 1,
    "training.num_trials": 1,
    "training.max_epochs": 3,
    "training.num_bootstrap": 20,
}
METRICS = {
    "average_precision",
    "roc_auc",
    "recall_at_low_fpr",
    "card_precision_at_100",
    "brier_score",
    "expected_calibration_error",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A small world with features, not trained on yet."""
    runs = tmp_path_factory.mktemp("tiny") / "runs"
    config = load_fraud_config(changes={**TINY, "runs": str(runs)})
    run_data(config)
    run_features(config)
    return config


@pytest.fixture(scope="module")
def result(config):
    return run_train(config)


@pytest.fixture(scope="module")
def retrained(config, result):
    return run_train(config, only="lightgbm", params=result["models"]["lightgbm"]["parameters"])


def test_every_model_and_baseline_has_every_metric(result):
    assert set(result["models"]) == set(MODEL_FILES)
    assert set(result["baselines"]) == {"constant", "amount_rule"}
    for metrics in (*result["models"].values(), *result["baselines"].values()):
        assert set(metrics) >= METRICS
        assert set(metrics) >= {f"{name}_interval" for name in METRICS}


def test_what_answers_without_history_is_judged_beside_the_baselines(result):
    request, rule = (result["fallbacks"][name] for name in ("request_model", "amount_threshold"))
    for metrics in (request, rule):
        assert set(metrics) >= METRICS | {"cost_per_day"}
    assert request["average_precision"] > rule["average_precision"]
    assert rule["average_precision"] > result["baselines"]["constant"]["average_precision"]
    assert rule["cost_per_day"] < result["operating_point"]["cost_per_day_approving_all"]


def test_every_kind_of_artefact_answers_without_history(config, result):
    scores = []
    for kind in result["models"]:
        folder = config.runs / "training" / "models" / kind
        artefact, reference = load_artefact(folder), load_reference(folder)
        matrix = encode_features(reference, encoding=artefact.spec.encoding)
        needs_history = [name not in artefact.spec.request_features for name in artefact.features]
        unknown = np.where(needs_history, np.nan, matrix)
        scores.append(artefact.predict_request(unknown))

        np.testing.assert_array_equal(scores[-1], artefact.predict_request(matrix))
        assert np.ptp(scores[-1]) > 0
        decisions = artefact.decide_request(scores[-1], np.full(len(matrix), 50.0))
        assert set(decisions) <= {"approve", "review", "decline"}
        assert artefact.spec.fallback.thresholds != artefact.spec.thresholds
    assert np.ptp(scores, axis=0).max() == 0  # the same in every kind


def test_the_result_is_json_without_nan(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_every_model_beats_the_constant(result):
    constant = result["baselines"]["constant"]["average_precision"]

    for metrics in result["models"].values():
        assert metrics["average_precision"] > 2 * constant


def test_the_folds_decide_and_not_the_test_period(result):
    by_folds = {name: m["fold_average_precision"] for name, m in result["models"].items()}

    assert result["champion"]["name"] == max(by_folds, key=by_folds.get)
    assert result["comparison"]["of"] == result["champion"]["name"]


def test_the_first_best_model_is_the_champion_and_the_next_one_challenges_it(
    config, result, retrained
):
    assert (result["champion"]["version"], result["challenger"]) == ("1", None)
    assert retrained["champion"] == result["champion"]
    assert retrained["challenger"] == {"name": "lightgbm", "version": "2"}
    assert get_champion(config.runs)[0] == "1"
    assert get_model(config.runs, "challenger")[0] == "2"


def test_retraining_with_the_same_parameters_on_the_same_rows_gives_the_same_model(
    config, retrained
):
    first = config.runs / "training" / "models" / "lightgbm" / "model.txt"
    again = config.runs / "training" / "retrained" / "models" / "lightgbm" / "model.txt"

    assert first.read_bytes() == again.read_bytes()
    assert set(retrained["models"]) == {"lightgbm"}


def test_the_registered_champion_is_the_artefact_that_was_written(config, result):
    folder = get_champion(config.runs)[1]
    written = config.runs / "training" / "models" / result["champion"]["name"]

    assert read_json(folder / "manifest.json") == read_json(written / "manifest.json")
    assert load_artefact(folder).spec.metrics["average_precision"] == pytest.approx(
        result["models"][result["champion"]["name"]]["average_precision"]
    )


def test_every_kind_of_artefact_loads_and_explains_itself(config, result):
    for kind in result["models"]:
        folder = config.runs / "training" / "models" / kind
        artefact, reference = load_artefact(folder), load_reference(folder)

        np.testing.assert_allclose(
            artefact.predict(reference), reference["score"], rtol=0, atol=1e-6
        )
        (reasons,) = artefact.explain(reference.head(1), top=3)
        assert len(reasons) == 3
        assert "amount_log" in artefact.spec.request_features
        assert "customer_tx_count_7d" not in artefact.spec.request_features


def test_the_blend_weighs_the_models_that_were_fitted_anyway(config, result):
    models = config.runs / "training" / "models"
    for kind, file in (("lightgbm", "model.txt"), ("pytorch", "model.onnx")):
        assert (models / "blend" / file).read_bytes() == (models / kind / file).read_bytes()
    parameters = result["models"]["blend"]["parameters"]
    assert read_json(models / "blend" / "blend.json") == {"tree_weight": parameters["tree_weight"]}
    assert parameters["lightgbm"] == result["models"]["lightgbm"]["parameters"]
    assert set(read_json(models / "blend" / "manifest.json")["sha256"]) >= {
        "blend.json",
        "model.txt",
        "model.onnx",
        "request_model.txt",
    }


def test_the_reference_is_later_than_every_row_a_model_was_fitted_on(config, result):
    reference = load_reference(get_champion(config.runs)[1])

    assert reference["event_time"].min() >= pd.Timestamp(result["split"]["train"]["end_time"])


def test_the_curves_and_pictures_are_where_the_result_says(config, result):
    report = read_json(config.runs / "training" / "report.json")
    names = {path.name for path in (config.runs / "training").glob("*.svg")}

    assert set(report["precision_recall"]) == {*MODEL_FILES, "constant", "amount_rule"}
    assert set(report["models"]["pytorch"]) == {
        "calibration",
        "cost",
        "feature_importance",
        "training_curves",
    }
    assert names == {
        "precision_recall.svg",
        "calibration.svg",
        "cost.svg",
        "feature_importance.svg",
        "training_curves.svg",
    }
    assert names <= {path.rsplit("/", 1)[-1] for path in result["wrote"]}


def test_training_in_the_past_is_training_without_the_future(config, tmp_path):
    """Everything after ``now`` is removed; features, split and model must not notice."""
    now = pd.Timestamp("2026-03-25", tz="UTC")
    transactions, labels = load_transactions(config.runs), load_labels(config.runs)
    past = config.model_copy(update={"runs": tmp_path / "runs"})
    save_past(past, transactions, labels, now=now)

    with_future = run_train(config, now=now, only="logistic_regression")
    without = run_train(past, now=now, only="logistic_regression")

    kept = ("models", "baselines", "split", "operating_point")
    assert {name: with_future[name] for name in kept} == {name: without[name] for name in kept}


@pytest.fixture(scope="module")
def shares(config):
    """What a service would have logged: each second fraud was declined, some others let through."""
    labels = load_labels(config.runs).sort_values("transaction_id")
    is_fraud = labels["is_fraud"].to_numpy(dtype=bool)
    declined = labels[is_fraud]["transaction_id"].iloc[::2]
    let_through = labels[~is_fraud]["transaction_id"].iloc[::50]
    return pd.concat([pd.Series(0.0, index=declined), pd.Series(0.25, index=let_through)])


@pytest.fixture(scope="module")
def materials(config, shares):
    """What training works with where every outcome is seen, and where not."""
    every = fraud_material.load_material(config)
    return every, fraud_material.load_material(config, outcome_shares=shares)


def list_slices(material):
    return material.training.train, material.training.calibration, material.test


def test_what_was_declined_is_in_no_slice_and_what_was_let_through_counts_for_it(materials, shares):
    for every, seen in zip(*map(list_slices, materials), strict=True):
        ids = every.transactions["transaction_id"]
        times = ids.map(shares).map({0.0: 0, 0.25: 4}).fillna(1).astype(int)
        assert {0, 1, 4} == set(times)
        assert seen.transactions["transaction_id"].tolist() == ids.repeat(times).tolist()
        np.testing.assert_array_equal(seen.matrix, every.matrix.repeat(times, axis=0))


def test_folds_leave_out_what_was_declined_too(materials):
    every, seen = (material.training.folds[0] for material in materials)
    assert 0 < seen.train_is_fraud.sum() < every.train_is_fraud.sum()
    assert 0 < seen.valid_is_fraud.sum() < every.valid_is_fraud.sum()


def test_a_declined_fraud_is_never_reported(materials, shares):
    every, seen = materials
    assert len(every.known_frauds) - len(seen.known_frauds) == (shares == 0).sum()


def test_monitoring_is_handed_each_transaction_once_whether_its_outcome_is_seen_or_not(materials):
    every, seen = materials
    pd.testing.assert_frame_equal(seen.features, every.features)


def test_the_same_files_with_other_outcomes_seen_are_other_data(materials, config):
    every, seen = materials
    assert seen.data_hash != every.data_hash
    nothing_hidden = pd.Series(1.0, index=every.features["transaction_id"])
    again = fraud_material.load_material(config, outcome_shares=nothing_hidden)
    assert again.data_hash == every.data_hash


def test_the_stage_trains_on_the_outcomes_it_was_told_are_seen(config, shares, monkeypatch):
    asked = []

    def stop(_config, **options):
        asked.append(options["outcome_shares"])
        raise KeyboardInterrupt

    monkeypatch.setattr("training.fraud.load_material", stop)
    with pytest.raises(KeyboardInterrupt):
        run_train(config, outcome_shares=shares)
    assert asked[0] is shares


def save_past(config, transactions, labels, *, now):
    from data.fraud import save_checked

    known = labels[labels["label_time"] <= now]
    checked = CheckedTransactions(
        transactions[transactions["event_time"] < now].reset_index(drop=True),
        known.reset_index(drop=True),
        pd.DataFrame({"source": pd.Series(dtype=object), "reason": pd.Series(dtype=object)}),
    )
    save_checked(checked, runs=config.runs, origin={})
    run_features(config)


def test_a_feature_that_knows_the_future_stops_the_run(config, monkeypatch):
    honest = fraud_material.read_training_features

    def peek(store, transactions):
        features = honest(store, transactions)
        following = features["event_time"].shift(-1) - features["event_time"]
        return features.assign(customer_tx_count_1h=following.dt.total_seconds())

    monkeypatch.setattr(fraud_material, "read_training_features", peek)

    with pytest.raises(LeakAlarm, match=r"customer_tx_count_1h .* computed after the event"):
        run_train(config, only="lightgbm")


def test_an_unknown_kind_of_model_is_an_error_that_lists_the_known_ones(config):
    with pytest.raises(ValueError, match="'forest'; it must be one of: logistic_regression, light"):
        run_train(config, only="forest")


def test_parameters_without_a_kind_are_an_error(config):
    with pytest.raises(ValueError, match="say which with only"):
        run_train(config, params={"num_trees": 3})


def test_training_before_there_is_data_says_what_to_run(tmp_path):
    config = load_fraud_config(changes={"runs": str(tmp_path)})

    with pytest.raises(FileNotFoundError, match="throughline fraud data"):
        run_train(config)


def test_a_history_that_is_too_short_says_so(config):
    with pytest.raises(ValueError, match="the history is too short"):
        run_train(config, now=pd.Timestamp("2026-02-10", tz="UTC"))


def with_column(config, runs, values):
    """The same world with one more column of the user's own."""
    transactions, labels = load_transactions(config.runs), load_labels(config.runs)
    mine = config.model_copy(update={"runs": runs})
    save_past(
        mine,
        transactions.assign(hint=values(transactions, labels)),
        labels,
        now=pd.Timestamp("2026-12-31", tz="UTC"),
    )
    return mine


def tell_truth(transactions, labels):
    frauds = labels.loc[labels["is_fraud"], "transaction_id"]
    return transactions["transaction_id"].isin(frauds).astype(float)


@pytest.fixture(scope="module")
def leaking(config, tmp_path_factory):
    """The world of a user whose file has a column that knows the truth."""
    return with_column(config, tmp_path_factory.mktemp("leaking") / "runs", tell_truth)


def test_a_column_that_knows_the_truth_stops_the_run_by_its_importance(leaking):
    with pytest.raises(LeakAlarm, match="feature hint carries"):
        run_train(leaking, only="lightgbm", params=STARTING_PARAMETERS | {"num_trees": 20})
    assert find_version(leaking.runs, "champion") is None


def test_a_column_that_knows_the_truth_stops_the_run_by_what_it_reaches(leaking):
    leaks = leaking.training.leaks.model_copy(update={"max_feature_importance_share": 1.0})
    training = leaking.training.model_copy(update={"leaks": leaks})
    with pytest.raises(LeakAlarm, match="lightgbm reaches average precision"):
        run_train(
            leaking.model_copy(update={"training": training}),
            only="lightgbm",
            params=STARTING_PARAMETERS | {"num_trees": 20},
        )
    assert find_version(leaking.runs, "champion") is None


def test_a_join_that_lost_its_values_stops_the_run(config, monkeypatch):
    honest = fraud_material.read_training_features

    def lose(store, transactions):
        return honest(store, transactions).assign(customer_tx_count_24h=0.0)

    monkeypatch.setattr(fraud_material, "read_training_features", lose)
    with pytest.raises(LeakAlarm, match="customer_tx_count_24h is 0 in every training row"):
        run_train(config, only="lightgbm")


def test_a_split_whose_slices_share_rows_stops_the_run(config, monkeypatch):
    honest = fraud_material.build_time_split

    def overlap(now, **settings):
        split = honest(now, **settings)
        whole = replace(split.train, end_time=split.test.end_time, known_by_time=now)
        return replace(split, train=whole)

    monkeypatch.setattr(fraud_material, "build_time_split", overlap)
    with pytest.raises(LeakAlarm, match="rows are shared between training and evaluation"):
        run_train(config, only="lightgbm")


@pytest.mark.usefixtures("result", "retrained")
@pytest.mark.parametrize(
    ("place", "calls", "only"),
    [
        ("training.fraud.build_candidate", 2, None),
        ("training.artefact.write_json", 1, "logistic_regression"),
        ("training.fraud_records.register", 1, "logistic_regression"),
    ],
    ids=["between candidates", "inside an artefact", "before the registry"],
)
def test_an_interrupted_run_changes_no_model_and_the_next_one_succeeds(
    config, monkeypatch, place, calls, only
):
    before = [get_model(config.runs, alias) for alias in ("champion", "challenger")]
    module, name = place.rsplit(".", 1)
    honest, left = getattr(sys.modules[module], name), [calls]

    def interrupt(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[module], name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_train(config, only=only)

    assert [get_model(config.runs, alias) for alias in ("champion", "challenger")] == before
    manifests = list(config.runs.rglob("manifest.json"))
    assert len(manifests) >= 8  # three models and a retrained one, each also in MLflow
    for manifest in manifests:
        load_artefact(manifest.parent)
    models = [*(config.runs / "training").glob("**/models/*")]
    assert {path.name for path in models} <= set(MODEL_FILES)
    again = run_train(config, only="logistic_regression")
    assert get_model(config.runs, "challenger")[0] == again["challenger"]["version"]
    assert get_champion(config.runs) == before[0]
