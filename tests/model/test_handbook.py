"""The handbook benchmark on a small world: what it writes, and in which direction leaks lead."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.schema import load_fraud_config
from data.handbook import simulate_handbook
from training import handbook_models, handbook_pipeline, handbook_rerun
from training.handbook import Calendar, run_handbook

CALENDAR = Calendar(first_day=40, num_folds=2)
SINGLE = ("logistic regression", "random forest", "XGBoost", "constant", "perfect oracle")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the benchmark on a small world, over smaller grids."""
    world = simulate_handbook(num_customers=300, num_terminals=900, num_days=72, radius=10.0)

    def build_few():
        families = handbook_models.build_families()
        kept = {"logistic regression": "C 1", "XGBoost": "rate 0.1, depth 3"}
        return {
            name: replace(
                families[name],
                models={key: families[name].models[key]},
                published={},
                chosen_as=None,
            )
            for name, key in kept.items()
        }

    def run_once():
        runs = tmp_path_factory.mktemp("handbook")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handbook_rerun, "build_families", build_few)
            patch.setattr(handbook_pipeline, "GRID", handbook_pipeline.GRID[:2])
            config = load_fraud_config(changes={"runs": runs})
            return run_handbook(config, world=world, calendar=CALENDAR)

    return run_once


@pytest.fixture(scope="module")
def result(run):
    return run()


@pytest.fixture(scope="module")
def rows(result):
    return {(row["protocol"], row["name"]): row for row in result["rows"]}


def test_each_leak_raises_average_precision(rows):
    honest = rows["ablations", "honest"]["average_precision"]
    leaks = [row for (protocol, name), row in rows.items()
             if protocol == "ablations" and name != "honest"]  # fmt: skip
    assert len(leaks) == 4
    for row in leaks:
        assert row["average_precision"] > honest + 0.02, row["name"]
        assert row["average_precision_gain"] == row["average_precision"] - honest


def test_the_limits_of_the_metrics_are_the_constant_and_the_oracle(rows):
    constant, oracle = (rows["single_split", name] for name in ("constant", "perfect oracle"))
    assert (constant["roc_auc"], oracle["roc_auc"], oracle["average_precision"]) == (0.5, 1.0, 1.0)
    for name in SINGLE:
        metrics = rows["single_split", name]
        assert constant["average_precision"] <= metrics["average_precision"] <= 1.0
        assert metrics["card_precision_at_100"] <= oracle["card_precision_at_100"]


def test_our_inputs_beat_the_handbooks(rows):
    ours = rows["prequential", "LightGBM on our inputs"]
    theirs = rows["prequential", "XGBoost, chosen here"]
    assert ours["average_precision"] > theirs["average_precision"] + 0.01


def test_frauds_that_nothing_announced_are_told_apart_no_better_than_by_chance(rows):
    ours = rows["prequential", "LightGBM on our inputs"]
    assert ours["roc_auc_unannounced"] == pytest.approx(0.5, abs=0.1)


def test_the_mean_over_folds_is_what_is_reported(rows):
    ours = rows["prequential", "LightGBM on our inputs"]
    assert len(ours["average_precision_folds"]) == CALENDAR.num_folds
    assert ours["average_precision"] == pytest.approx(
        sum(ours["average_precision_folds"]) / CALENDAR.num_folds
    )


def test_a_published_figure_stands_beside_ours_with_the_difference(rows, result):
    forest = rows["single_split", "random forest"]
    assert forest["average_precision_published"] == 0.658
    difference = forest["average_precision"] - 0.658
    assert forest["average_precision_difference"] == pytest.approx(difference)
    assert (
        f"(0.658, {difference:+.3f})"
        in result["single_split"]["random forest"]["average_precision"]
    )
    assert result["counts"]["train_rows"]["equal"] is False


def test_the_files_hold_the_same_rows(result):
    document, table, *pictures = map(Path, result["wrote"])
    assert json.loads(document.read_text())["rows"] == result["rows"]
    with table.open() as lines:
        written = [(line["protocol"], line["name"]) for line in csv.DictReader(lines)]
    assert written == [(row["protocol"], row["name"]) for row in result["rows"]]
    assert [path.read_text().lstrip()[:5] for path in pictures] == ["<?xml", "<?xml"]


def test_two_runs_measure_the_same(run, result):
    assert run()["rows"] == result["rows"]
