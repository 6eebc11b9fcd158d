"""The whole time-lapse at a tiny size: real worlds, features, models, monitor and loop."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.files import read_json
from configs.schema import load_fraud_config
from data.fraud import load_labels, load_transactions, run_data
from features.store import open_feature_store, read_training_features
from features.store_build import run_features
from monitoring.timelapse import run_timelapse
from monitoring.timelapse_answers import Answers, Served
from monitoring.timelapse_evidence import Evidence
from monitoring.timelapse_models import Trainer
from monitoring.timelapse_worlds import World, WorldPlan, build_world, configure_world
from training.artefact import load_artefact
from training.fraud import run_train
from training.fraud_material import plan_split
from training.fraud_prices import read_prices
from training.fraud_refit import refit
from training.registry import get_champion
from training.rollout import Rollout

DAY = pd.Timedelta(days=1)
TINY = {
    "data.size": "tiny",
    "data.sizes.tiny": {"num_customers": 250, "num_merchants": 60, "num_days": 1},
    "data.label_delay_days": 3,
    "training.warm_up_days": 5,
    "training.train_days": 20,
    "training.calibration_days": 5,
    "training.test_days": 5,
    "training.num_folds": 1,
    "training.fold_days": 4,
    "training.leaks.max_average_precision": 1.0,
    "training.leaks.max_feature_importance_share": 1.0,
    "training.leaks.max_shuffled_auc_deviation": 0.5,
    "monitoring.window_days": 4,
    "monitoring.min_rows": 200,
    "monitoring.min_matured_frauds": 5,
    "retraining.min_new_frauds": 1,
    "retraining.floor_days": 6,
    "retraining.cooldown_days": 2,
    "timelapse.before_days": 32,
    "timelapse.served_days": 14,
    "timelapse.change_day": 4,
    "timelapse.gradual_days": 5,
    "timelapse.broken_days": 4,
    "timelapse.look_every_days": 2,
    "timelapse.num_trees": 10,
    "timelapse.num_bootstrap": 20,
    "timelapse.witness_days": 0,
}
PARAMETERS = {"num_trees": 10, "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 20}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    runs = tmp_path_factory.mktemp("timelapse")
    return load_fraud_config(changes={**TINY, "runs": str(runs)})


def replay(config, **arguments):
    return run_timelapse(config, refit=refit, train=run_train, processes=1, **arguments)


@pytest.fixture(scope="module")
def result(config):
    return replay(config, only=["abrupt", "broken_feed"])


@pytest.fixture(scope="module")
def world(config, tmp_path_factory) -> World:
    plan = WorldPlan("unchanged", "nothing changes")
    return build_world(configure_world(config, plan, folder=tmp_path_factory.mktemp("world")), plan)


def find_days(result, world, policy):
    return result["worlds"][world]["policies"][policy]["days"]


def drop_times(result):
    kept = {name: value for name, value in result.items() if name in ("rows", "targets", "notes")}
    days = {
        name: {policy: item["days"] for policy, item in world["policies"].items()}
        for name, world in result["worlds"].items()
    }
    return json.dumps({**kept, "days": days})


def test_every_policy_serves_every_day_of_every_world(result):
    assert {row["name"] for row in result["rows"]} == {
        f"{world}: {policy}"
        for world in ("abrupt", "broken_feed")
        for policy in (
            *("never", "every_7_days", "every_28_days"),
            *("drift_only", "matured_only", "ours"),
        )
    }
    for row in result["rows"]:
        assert len(find_days(result, row["world"], row["policy"])) == 14
        assert 0 < row["mean_average_precision"] <= 1


def test_a_schedule_trains_when_it_is_due_and_never_means_never(result):
    trained = {row["name"]: row["trainings"] for row in result["rows"]}
    assert trained["abrupt: every_7_days"] == 2
    assert trained["abrupt: every_28_days"] == 0
    assert trained["abrupt: never"] == 0


def test_policies_that_never_train_answer_alike(result):
    never, monthly = (find_days(result, "abrupt", name) for name in ("never", "every_28_days"))
    assert [day["average_precision"] for day in never] == [
        day["average_precision"] for day in monthly
    ]


def test_ours_trains_nothing_on_a_broken_feed_and_names_it(result):
    assert {
        target["name"]: target["met"] for target in result["targets"] if "broken" in target["name"]
    } == {
        "broken feed: trainings while broken": True,
        "broken feed: days until 'ip' is named": True,
    }


def test_the_same_world_replayed_again_gives_the_same_days(config, result):
    again = replay(config.model_copy(update={"runs": config.runs / "again"}), only=["abrupt"])
    first = {**result, "worlds": {"abrupt": result["worlds"]["abrupt"]}}
    first["rows"] = [row for row in result["rows"] if row["world"] == "abrupt"]
    for key in ("targets", "notes"):
        first[key], again[key] = [], []
    assert drop_times(first) == drop_times(again)


def test_what_is_written_is_what_is_returned(config, result):
    folder = config.runs / "timelapse"
    assert read_json(folder / "timelapse.json")["rows"] == result["rows"]
    assert len(pd.read_csv(folder / "timelapse.csv")) == len(result["rows"])
    for name in ("abrupt.svg", "broken_feed.svg", "timelapse.html"):
        assert str(folder / name) in result["wrote"]


@pytest.mark.usefixtures("result")
def test_the_page_asks_for_nothing_from_outside_and_holds_every_day(config):
    page = (config.runs / "timelapse" / "timelapse.html").read_text()
    assert "src=" not in page
    assert not re.search(r'(href|url\()="?https?:', page)
    block = re.search(r'<script type="application/json" id="replay">(.*?)</script>', page, re.S)
    replayed = json.loads(block[1])
    assert len(replayed["abrupt"]["policies"]["ours"]["ap"]) == 14


@pytest.mark.usefixtures("result")
def test_an_interrupted_run_leaves_the_results_before_it_whole(config):
    before = {p: p.read_bytes() for p in (config.runs / "timelapse").iterdir() if p.is_file()}

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_timelapse(config, refit=interrupt, train=run_train, processes=1, only=["unchanged"])
    after = {p: p.read_bytes() for p in (config.runs / "timelapse").iterdir() if p.is_file()}
    assert after == before


def test_an_unknown_world_is_refused_by_name(config):
    with pytest.raises(ValueError, match="no world 'sudden'; there are: unchanged, gradual"):
        replay(config, only=["sudden"])


def test_a_file_of_ones_own_is_a_world(config, tmp_path, world):
    file, mapping = tmp_path / "own.csv", tmp_path / "own.yaml"
    rows = world.transactions.merge(
        world.labels[["transaction_id", "is_fraud"]], on="transaction_id"
    )
    rows[["transaction_id", "event_time", "customer_id", "amount", "is_fraud"]].to_csv(
        file, index=False
    )
    names = ("transaction_id", "event_time", "customer_id", "amount", "is_fraud")
    mapping.write_text("columns:\n" + "".join(f"  {name}: {name}\n" for name in names))
    own = config.model_copy(update={"runs": tmp_path / "runs"})
    found = replay(own, transactions=file, mapping=mapping)
    assert list(found["worlds"]) == ["yours"]
    assert found["targets"] == []
    assert found["served_days"] == 14


def test_a_refit_is_the_model_that_the_training_stage_makes(config, tmp_path):
    size = config.world_size.model_copy(update={"num_days": 40})
    data = config.data.model_copy(update={"sizes": {"tiny": size}})
    chosen = config.model_copy(update={"runs": tmp_path, "data": data})
    run_data(chosen)
    run_features(chosen)
    now = pd.Timestamp(config.data.start_time) + 38 * DAY
    run_train(chosen, now=now, only="lightgbm", params=PARAMETERS)
    version, folder = get_champion(tmp_path)
    trained = load_artefact(folder, version=version)

    history, labels = load_transactions(tmp_path), load_labels(tmp_path)
    split = plan_split(chosen, now=now, first_event_time=history["event_time"].iloc[0])
    times = history["event_time"]
    rows = history[(times >= split.train.start_time) & (times < split.test.end_time)]
    known = labels[labels["label_time"] <= now]
    rows = rows.merge(known, on="transaction_id", how="left")
    store = open_feature_store(tmp_path)
    features = read_training_features(store, rows)
    refitted = refit(
        chosen, rows, features, chosen=store.features, split=split, parameters=PARAMETERS
    ).artefact
    assert refitted.predict(features).tolist() == trained.predict(features).tolist()
    assert refitted.spec.calibration == trained.spec.calibration
    assert refitted.spec.thresholds == trained.spec.thresholds
    for name in ("average_precision", "cost_per_1000"):
        assert refitted.spec.metrics[name] == pytest.approx(trained.spec.metrics[name])


@pytest.fixture(scope="module")
def models(config, world):
    trainer = Trainer(config, world, refit=refit, parameters=PARAMETERS)
    everything = np.ones(len(world.transactions))
    first = trainer.train(world.first_time, outcome_shares=everything)
    later = trainer.train(world.get_time(6), outcome_shares=everything)
    return trainer, first, later


def test_the_same_knowledge_on_the_same_day_is_trained_on_once(models, world):
    trainer, first, _ = models
    num_trained = trainer.num_trained
    again = trainer.train(world.first_time, outcome_shares=np.ones(len(world.transactions)))
    assert again is first
    assert trainer.num_trained == num_trained


def test_an_outcome_that_is_not_seen_makes_another_model(models, world):
    trainer, first, _ = models
    times = world.transactions["event_time"]
    in_training = times.searchsorted(first.split.train.start_time)
    shares = np.ones(len(world.transactions))
    shares[in_training : in_training + 500] = 0.0
    assert trainer.train(world.first_time, outcome_shares=shares).key != first.key


def test_a_canary_answers_its_customers_and_nobody_else(config, models, world):
    _, first, later = models
    answers = Answers(world, prices=read_prices(config), explore_share=0.5)
    rollout = Rollout("2", "canary", 0.3)
    answers.serve_day(0, Served("1", first, rollout, later))
    answered = answers.select(0, 1)
    customers = world.transactions["customer_id"].loc[answered.index]  # answers hold numbers
    theirs = customers.map(rollout.has)
    assert 0 < theirs.mean() < 1
    assert (answered["arm"] == "challenger").tolist() == theirs.tolist()
    expected = np.where(theirs, later.score_day(0), first.score_day(0))
    assert answered["score"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "triggers", [["drift"], ["matured"], ["matured", "estimated"], []], ids=str
)
def test_a_look_taken_for_all_tells_whoever_asks_for_less_the_same(config, models, world, triggers):
    champion = replace(models[1], artefact=replace(models[1].artefact, version="1"))
    answers = Answers(world, prices=read_prices(config), explore_share=0.5)
    for day in range(8):
        answers.serve_day(day, Served("1", champion, None, None))
    monitoring = config.monitoring.model_copy(update={"max_unit_ratio": 1.0001})
    fussy = config.model_copy(update={"monitoring": monitoring})  # some unit always seems changed
    shared, own = Evidence(fussy, world), Evidence(fussy, world)
    when = {"day": 8, "since_day": 0}
    every = ["drift", "matured", "estimated"]
    shared.observe(answers, champion, **when, triggers=every, checks_feed=True)
    told = [
        looks.observe(answers, champion, **when, triggers=triggers, checks_feed=not triggers)
        for looks in (shared, own)
    ]
    assert told[0] == told[1]
    assert set(told[0].alarms) == set(triggers)
    assert bool(told[0].blocking) == (not triggers)
    assert shared.num_looks == 1


def test_a_shadow_answers_nobody(config, models, world):
    _, first, later = models
    answers = Answers(world, prices=read_prices(config), explore_share=0.5)
    answers.serve_day(0, Served("1", first, Rollout("2", "shadow", 0.0), later))
    answered = answers.select(0, 1)
    assert set(answered["arm"]) == {"champion"}
    assert answered["score"].tolist() == first.score_day(0).tolist()


def test_a_declined_outcome_is_never_seen_and_a_share_is_let_through(config, models, world):
    _, model, _ = models
    spec = model.artefact.spec
    strict = replace(spec.thresholds, review=0.02, decline=0.04)
    first = replace(model, artefact=replace(model.artefact, spec=replace(spec, thresholds=strict)))
    answers = Answers(world, prices=read_prices(config), explore_share=0.5)
    for day in range(world.num_days):
        answers.serve_day(day, Served("1", first, None, None))
    answered = answers.select(0, world.num_days)
    declined = first.artefact.decide(answered["score"].to_numpy(), answered["amount"].to_numpy())
    would = declined == "decline"
    assert would.sum() > 10
    assert set(answered.loc[would, "outcome_share"]) == {0.0, 0.5}
    assert set(answered.loc[~would, "outcome_share"]) == {1.0}
    is_let_through = answered["outcome_share"] == 0.5
    assert set(answered.loc[is_let_through, "decision"]) <= {"review", "approve"}


def test_paths_of_results_are_under_the_runs_folder(config, result):
    assert all(Path(path).is_relative_to(config.runs) for path in result["wrote"])
