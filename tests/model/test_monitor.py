"""The monitoring stage over a small trained world: sound, broken, moved and mis-modelled."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

import monitoring.fraud_retraining
from configs.files import read_json
from configs.schema import load_fraud_config
from data.fraud import load_labels, load_transactions, run_data
from features.fraud_history import to_microseconds
from features.fraud_selection import FeatureSet
from features.store import open_feature_store, read_training_features
from features.store_build import run_features
from monitoring.fraud import observe, run_monitor
from monitoring.fraud_retraining import judge_challenger, run_retraining
from monitoring.outcome_shares import read_outcome_shares
from serving.prediction_log import PredictionLog, ScoredBatch, get_prediction_folder
from training.artefact import load_artefact, load_reference, save_artefact
from training.fraud import run_train
from training.promotion import set_alias
from training.registration import RunRecord, log_run, register
from training.registry import CHALLENGER, CHAMPION, find_version, get_champion

WORLD = {
    "data.size": "small",
    "data.sizes.small": {"num_customers": 300, "num_merchants": 120, "num_days": 100},
    "data.changes": [{"day": 80, "amount_factor": 2.0, "volume_factor": 1.3}],
    "training.warm_up_days": 15,
    "training.num_folds": 1,
    "training.num_bootstrap": 50,
    "training.leaks.max_average_precision": 1.0,
    "training.leaks.max_feature_importance_share": 1.0,
    "training.leaks.max_shuffled_auc_deviation": 0.5,
    "monitoring.min_matured_frauds": 10,
}
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A world that changes on day 80, and a champion trained on day 74."""
    runs = tmp_path_factory.mktemp("monitored") / "runs"
    config = load_fraud_config(changes={**WORLD, "runs": str(runs)})
    run_data(config, world="simulated", transactions=None, mapping=None)
    run_features(config)
    run_train(config, now=at(config, 74), only="logistic_regression")
    return config


def at(config, day: float) -> pd.Timestamp:
    return pd.Timestamp(config.data.start_time) + day * DAY


@pytest.fixture(scope="module")
def features(config) -> pd.DataFrame:
    """What a service would have computed for each transaction from day 74 on."""
    history = load_transactions(config.runs)
    recent = history[history["event_time"] >= at(config, 74)]
    return read_training_features(open_feature_store(config.runs), recent)


@pytest.fixture
def answer(config, features):
    """Write the log of a service that answered from one day to another; forget earlier logs."""

    def write(
        first: float,
        last: float,
        *,
        change=lambda rows: rows,
        version=None,
        outcome_share=lambda scores: np.ones(len(scores)),
        reason=None,
    ) -> None:
        folder = get_prediction_folder(config.runs)
        for old in folder.glob("*.arrows"):
            old.unlink()
        folder.mkdir(exist_ok=True)
        champion_version, place = get_champion(config.runs)
        champion = load_artefact(place)
        rows = features[features["event_time"].between(at(config, first), at(config, last))]
        served = change(rows[list(champion.features)].copy())
        categorical = tuple(champion.spec.encoding.vocabularies)
        feature_set = FeatureSet(tuple(served.columns), categorical=categorical, dropped={})
        batch = ScoredBatch(
            prediction_time_us=1_793_491_200_000_000,  # 2026-11-01
            model_version=version or champion_version,
            arm="champion",
            transaction_ids=rows["transaction_id"].tolist(),
            event_times_us=to_microseconds(rows["event_time"]),
            amounts=np.ones(len(rows)),
            features=served[list(feature_set.numeric)].to_numpy(np.float64),
            categories=[served[name].tolist() for name in categorical],
            scores=champion.predict(rows),
            decisions=["approve"] * len(rows),
            degraded_reasons=[reason] * len(rows),
            latency_ms=np.ones(len(rows)),
            outcome_shares=outcome_share(champion.predict(rows)),
        )
        log = PredictionLog(folder, feature_set=feature_set, flush_seconds=3600, max_pending=10**9)
        log.append(batch)
        log.close()
        assert log.counts == (len(rows), 0, 0)

    return write


@pytest.fixture
def upside_down(config):
    """A champion that takes frauds for legitimate, and its good sibling as a trainable challenger.

    Yields a ``train`` that makes the sibling challenger; the sibling is champion again afterwards.
    """
    good, place = get_champion(config.runs)
    artefact = load_artefact(place)
    coefficients = read_json(place / "coefficients.json")
    coefficients["weights"] = [-weight for weight in coefficients["weights"]]
    folder = config.runs / "upside_down"
    reference = load_reference(place)
    save_artefact(
        folder,
        spec=artefact.spec,
        content=json.dumps(coefficients).encode(),
        golden_features=reference.head(3),
        reference_features=reference,
        request_content=(place / "request_model.txt").read_bytes(),
    )
    run_id = log_run(
        config.runs, RunRecord("bad"), artefact=folder, encoding=artefact.spec.encoding
    )
    set_alias(config.runs, CHAMPION, version=register(config.runs, run_id))

    def train(_config, **asked):
        assert asked["only"] == "logistic_regression"
        assert asked["params"] == artefact.spec.parameters
        set_alias(config.runs, CHALLENGER, version=good)
        return {}

    yield train
    set_alias(config.runs, CHAMPION, version=good)


def without_drift(config):
    """The same configuration, with drift switched off: Evidently takes seconds."""
    monitoring = config.monitoring.model_copy(update={"min_rows": 10**9})
    return config.model_copy(update={"monitoring": monitoring})


def refuse_to_train(*_args, **_kwargs):
    raise AssertionError("nothing was to be trained")


def test_a_sound_feed_from_an_unchanged_world_is_kept_and_written_down(config, answer):
    answer(75, 79)
    result = run_monitor(config, train=refuse_to_train)
    assert result["quality"] == {"blocked": False, "findings": []}
    assert not result["drift"]["detected"]
    assert result["decision"]["action"] == "keep"
    assert [path.rsplit("/", 1)[1] for path in result["wrote"]] == [
        "monitor.json",
        "report.html",
        "report.json",
        "snapshot.json",
    ]
    written = read_json(Path(result["wrote"][0]))
    assert written == {key: result[key] for key in written}


def test_a_world_that_changed_is_found_and_the_decision_says_by_what(config, answer):
    answer(80, 84)
    result = run_monitor(config)
    assert result["drift"]["detected"]
    assert "amount_log" in result["drift"]["features"]
    assert result["decision"]["action"] == "retrain"
    assert "amount_log" in result["decision"]["reasons"][0]
    assert result["retrain"]["triggered"] is False
    assert "throughline fraud train" in result["next"]


def test_a_broken_feed_blocks_retraining_and_names_the_column(config, answer):
    answer(80, 84, change=lambda rows: rows.assign(customer_tx_count_7d=np.nan))
    result = run_monitor(config, train=refuse_to_train)
    assert result["drift"]["detected"]
    assert result["decision"]["action"] == "blocked"
    assert "customer_tx_count_7d is empty" in result["decision"]["reasons"][1]
    assert "customer_tx_count_7d" in result["drift"]["excluded"]


def test_labels_that_arrive_after_now_are_not_looked_at(config, answer):
    answer(75, 79)
    config = without_drift(config)
    early = run_monitor(config)["performance"]
    assert early["immature_share"] == 1
    assert early["average_precision"] is None
    late = run_monitor(config, now=at(config, 87), since=at(config, 75))["performance"]
    assert late["immature_share"] == 0
    assert 0 < late["unlabelled_share"] < 0.05
    history = load_transactions(config.runs)
    asked = history["event_time"].between(at(config, 75), at(config, 79))
    truth = load_labels(config.runs).merge(history.loc[asked, ["transaction_id"]])
    assert late["num_frauds"] == int(truth["is_fraud"].sum())


def test_the_window_ends_where_it_was_told_to(config, answer):
    answer(75, 83)
    result = run_monitor(
        without_drift(config), now=at(config, 83), since=at(config, 75), until=at(config, 78)
    )
    history = load_transactions(config.runs)["event_time"]
    assert result["rows"] == int(
        history.between(at(config, 75), at(config, 78), inclusive="left").sum()
    )


def test_what_a_killed_service_left_unfinished_is_set_aside_and_counted(config, answer):
    answer(75, 79)
    whole = run_monitor(without_drift(config))
    (segment,) = get_prediction_folder(config.runs).glob("*.arrows")
    end = b"\xff\xff\xff\xff\0\0\0\0"
    segment.write_bytes(segment.read_bytes().removesuffix(end) + b"\xff\xff\xff\xff\x08")
    cut = run_monitor(without_drift(config))
    assert (whole["num_truncated"], cut["num_truncated"]) == (0, 1)
    assert cut["rows"] == whole["rows"]


def test_the_limits_of_the_configuration_decide(config, answer):
    answer(75, 83, change=lambda rows: rows.assign(amount_log=rows["amount_log"] + np.log(2)))
    strict = {"window_days": 2, "max_unit_ratio": 1.5}
    monitoring = without_drift(config).monitoring.model_copy(update=strict)
    result = run_monitor(config.model_copy(update={"monitoring": monitoring}))
    assert pd.Timestamp(result["until"]) - pd.Timestamp(result["since"]) == 2 * DAY
    assert "unit" in {finding["check"] for finding in result["quality"]["findings"]}
    quiet = run_monitor(without_drift(config))
    assert "unit" not in {finding["check"] for finding in quiet["quality"]["findings"]}


def test_a_handful_of_predictions_raises_no_alarm(config, answer):
    answer(80, 80.5)
    result = run_monitor(config, train=refuse_to_train)
    assert result["drift"]["reason"].startswith("not enough rows")
    assert result["decision"]["action"] == "keep"


def test_a_degraded_champion_is_replaced_by_a_better_challenger(config, answer, upside_down):
    answer(75, 80)
    result = run_monitor(
        without_drift(config), now=at(config, 100), since=at(config, 75), train=upside_down
    )
    assert result["performance"]["is_degraded"]
    assert result["decision"]["action"] == "retrain"
    retrain = result["retrain"]
    assert retrain["promoted"]
    assert retrain["average_precision_after"] > retrain["average_precision_before"]
    assert find_version(config.runs, CHAMPION) == retrain["version"] == retrain["challenger"]
    assert read_json(Path(result["wrote"][0]))["retrain"] == retrain


def test_the_gate_judges_on_the_last_matured_week(config, answer, upside_down, features):
    answer(75, 80)
    _, place = get_champion(config.runs)
    result = run_monitor(
        without_drift(config), now=at(config, 100), since=at(config, 75), train=upside_down
    )
    week = features[features["event_time"].between(at(config, 86), at(config, 93), "left")]
    judged = week.merge(load_labels(config.runs), on="transaction_id")
    scores = load_artefact(place).predict(judged)
    assert result["retrain"]["rows"] == len(judged)
    assert result["retrain"]["average_precision_before"] == pytest.approx(
        average_precision_score(judged["is_fraud"].astype(bool), scores)
    )


def test_the_gate_leaves_out_what_was_declined_and_weighs_what_was_let_through(
    config, answer, features
):
    def hide(scores):
        chance = np.where(np.arange(len(scores)) % 2, 0.0, 0.25)
        return np.where(scores > np.quantile(scores, 0.95), chance, 1.0)

    answer(86, 93, outcome_share=hide)
    version, place = get_champion(config.runs)
    model = load_artefact(place, version=version)
    verdict = judge_challenger(config, champion=model, challenger=model, now=at(config, 100))

    answered = features[features["event_time"].between(at(config, 86), at(config, 93))]
    judged = answered.assign(share=hide(model.predict(answered)))
    is_seen = (judged["event_time"] < at(config, 93)) & (judged["share"] > 0)
    judged = judged[is_seen].merge(load_labels(config.runs), on="transaction_id")
    assert set(judged["share"]) == {0.25, 1.0}
    assert verdict.num_rows == len(judged)
    assert verdict.champion_average_precision == pytest.approx(
        average_precision_score(
            judged["is_fraud"].astype(bool),
            model.predict(judged),
            sample_weight=1 / judged["share"],
        )
    )


def test_the_gate_is_undecided_where_payments_were_declined_and_none_let_through(
    config, answer, monkeypatch
):
    answer(86, 93, outcome_share=lambda scores: np.where(scores > 0.3, 0.0, 1.0))
    shares = read_outcome_shares(config.runs)
    labels = load_labels(config.runs)
    reported = labels[labels["transaction_id"].map(shares).fillna(1.0) > 0]
    monkeypatch.setattr(monitoring.fraud_retraining, "load_labels", lambda _: reported)
    version, place = get_champion(config.runs)
    model = load_artefact(place, version=version)
    verdict = judge_challenger(config, champion=model, challenger=model, now=at(config, 100))
    assert (verdict.promote, verdict.is_decided) == (False, False)
    assert "declined transactions have no outcome" in verdict.reasons[0]
    assert verdict.num_frauds > 0


def test_a_challenger_is_trained_on_the_outcomes_the_log_says_can_be_seen(
    config, answer, upside_down
):
    answer(75, 80, outcome_share=lambda scores: np.where(scores > 0.3, 0.0, 1.0))
    shares = []

    def train(config, **asked):
        shares.append(asked["outcome_shares"])
        return upside_down(config, **asked)

    run_retraining(config, now=at(config, 100), train=train)
    assert set(shares[0]) == {0.0, 1.0}


def test_a_challenger_is_not_judged_on_days_it_was_made_from(config):
    version, place = get_champion(config.runs)
    model = load_artefact(place, version=version)
    early = judge_challenger(config, champion=model, challenger=model, now=at(config, 73.9))
    assert not early.promote
    assert "too few later ones have matured" in early.reasons[0]
    in_time = judge_challenger(config, champion=model, challenger=model, now=at(config, 74))
    assert in_time.difference == 0


def test_the_loop_sees_at_an_instant_what_the_report_says(config, answer):
    answer(75, 87)
    config = without_drift(config)
    observation = observe(config, at(config, 87))
    report = run_monitor(config, now=at(config, 87))
    assert observation.evidence == {key: report[key] for key in observation.evidence}
    assert observation.champion == report["champion"]["version"]
    assert observation.alarms["matured"].is_on is not None
    assert observation.alarms["drift"].reason.startswith("not enough rows")


def test_new_frauds_are_those_matured_since_the_last_day_the_champion_was_made_from(config, answer):
    answer(75, 88)
    seen_until = pd.Timestamp(load_artefact(get_champion(config.runs)[1]).spec.train_end_time)
    seen_until += config.training.calibration_days * DAY
    truth = load_transactions(config.runs).merge(load_labels(config.runs), on="transaction_id")
    for now in (at(config, 80), at(config, 88)):
        is_new = truth["event_time"].between(seen_until, now - 7 * DAY) & truth["is_fraud"]
        observation = observe(without_drift(config), now)
        assert observation.num_new_frauds == int((is_new & (truth["label_time"] <= now)).sum())
        assert observation.champion_trained_time == at(config, 74)


def test_outcomes_of_declined_transactions_are_seen_nowhere(config, answer):
    answer(75, 80, outcome_share=lambda scores: np.where(scores > 0.3, 0.0, 1.0))
    blind = observe(without_drift(config), at(config, 88))
    answer(75, 80)
    sighted = observe(without_drift(config), at(config, 88))
    assert blind.evidence["performance"]["average_precision"] is None
    assert "raise serving.explore_share" in blind.alarms["matured"].reason
    assert blind.num_new_frauds < sighted.num_new_frauds
    assert blind.evidence["base_rate"]["num_rows"] < sighted.evidence["base_rate"]["num_rows"]


def test_degraded_answers_speak_of_the_feed_and_not_of_the_model(config, answer):
    answer(75, 80, reason="online store unavailable: rule on the amount")
    observation = observe(without_drift(config), at(config, 80))
    assert "degraded" in observation.blocking[0]
    assert observation.evidence["performance"]["num_predictions"] == 0
    assert observation.evidence["estimate"]["num_rows"] == 0
    assert observation.evidence["drift"]["rows"] == 0


def test_a_champion_that_has_just_taken_over_is_no_alarm(config, answer):
    answer(75, 80, version="99")
    observation = observe(config, at(config, 80))
    assert observation.blocking == ()
    assert {alarm.is_on for alarm in observation.alarms.values()} == {None}


def test_a_week_without_any_answer_blocks(config, answer):
    answer(75, 76)
    observation = observe(config, at(config, 90))
    assert observation.blocking == ("nothing was answered in the whole window",)


def test_one_corrupted_day_of_a_week_blocks_retraining_and_is_named(config, answer, features):
    days = features["event_time"].dt.floor("D")

    def empty_a_day(rows):
        is_hit = days.loc[rows.index] == at(config, 77)
        return rows.assign(amount_log=rows["amount_log"].where(~is_hit, 0.0))

    answer(74, 80, change=empty_a_day)
    observation = observe(without_drift(config), at(config, 80))
    assert len(observation.blocking) == 1
    assert "amount_log is zero" in observation.blocking[0]
    assert f"{at(config, 77):%Y-%m-%d}" in observation.blocking[0]


def test_a_log_without_answers_of_the_champion_is_a_one_line_error(config, answer):
    answer(75, 76, version="99")
    with pytest.raises(ValueError, match=r"version 1 answered nothing .* holds version 99"):
        run_monitor(config)


def test_an_empty_log_is_a_one_line_error_that_says_what_to_do(config):
    for old in get_prediction_folder(config.runs).glob("*.arrows"):
        old.unlink()
    with pytest.raises(FileNotFoundError, match="throughline fraud serve"):
        run_monitor(config)
