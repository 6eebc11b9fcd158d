"""The bench of false alarms on one small unchanged world, and its arithmetic."""

import pytest
from scipy.stats import binomtest

from configs.schema import load_fraud_config
from monitoring.false_alarms import find_wilson_interval, measure_false_alarms
from training.fraud import run_train

TREES = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "lambda_l2": 1.0,
    "num_trees": 40,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    small = {"num_customers": 250, "num_merchants": 100, "num_days": 10}
    return load_fraud_config(
        changes={
            "runs": str(tmp_path_factory.mktemp("alarms") / "runs"),
            "data.size": "small",
            "data.sizes.small": small,
            "data.changes": [{"day": 0, "amount_factor": 5.0}],
            "training.num_bootstrap": 20,
            "training.leaks.max_average_precision": 1.0,
            "training.leaks.max_feature_importance_share": 1.0,
            "training.leaks.max_shuffled_auc_deviation": 0.5,
            "monitoring.min_matured_frauds": 5,
            "serving.explore_share": 0.5,
        }
    )


@pytest.mark.parametrize(("num_hits", "num_trials"), [(0, 30), (3, 36), (36, 36)])
def test_the_interval_is_wilsons(num_hits, num_trials):
    expected = binomtest(num_hits, num_trials).proportion_ci(method="wilson")
    assert find_wilson_interval(num_hits, num_trials) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


def test_reports_are_counted_by_what_they_could_tell(config):
    asked = []

    def train(world, now):
        asked.append((world.data.changes, world.seed))
        return run_train(world, now=now, only="lightgbm", params=TREES)

    result = measure_false_alarms(config, train=train, seeds=[3], num_weeks=2)
    assert asked == [((), 3)]
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["features or scores"]["reports"] == rows["data quality"]["reports"] == 2
    assert rows["matured"]["reports"] == 1  # the first week's labels mature in the second
    assert 0 <= rows["drift"]["rate_low"] <= rows["drift"]["rate"] <= rows["drift"]["rate_high"]
    (target,) = result["targets"]
    assert target["target"] == pytest.approx(0.03)
