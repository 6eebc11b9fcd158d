"""The whole story at a small size, with the real Feast, MLflow, BentoML and Evidently."""

from pathlib import Path

import pytest

from configs.files import read_json
from configs.schema import load_fraud_config
from fraud_demo import run_demo

SMALL = {
    "data.sizes.demo": {"num_customers": 300, "num_merchants": 100, "num_days": 100},
    "training.warm_up_days": 10,
    "training.num_folds": 1,
    "training.num_trials": 1,
    "training.max_epochs": 1,
    "training.num_bootstrap": 20,
    "training.leaks.max_shuffled_auc_deviation": 0.3,
    "monitoring.min_rows": 200,
    "monitoring.num_reference_windows": 10,
    "load.num_requests": 50,
}


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    runs = tmp_path_factory.mktemp("demo") / "runs"
    return run_demo(load_fraud_config(changes={**SMALL, "runs": runs}))


@pytest.mark.stack
def test_the_summary_on_disk_holds_what_scripts_read(summary):
    path = next(name for name in summary["wrote"] if name.endswith("summary.json"))
    written = read_json(Path(path))
    assert set(written["models"]) == {"logistic_regression", "lightgbm", "pytorch", "blend"}
    for model in written["models"].values():
        assert {"average_precision", "roc_auc"} <= set(model)
    assert {"name", "version"} <= set(written["champion"])
    assert {"requests", "errors", "p50_ms", "p99_ms", "qps"} <= set(written["serving"])
    assert {"detected", "features"} <= set(written["drift"])
    assert {"triggered", "promoted", "average_precision_before", "average_precision_after"} <= set(
        written["retrain"]
    )
    assert {"seconds_total", "transactions", "fraud_rate"} <= set(written)


@pytest.mark.stack
def test_everything_served_equals_history(summary):
    assert summary["parity"]["rows"] > 500
    assert summary["parity"]["max_abs_difference"] < 1e-9
    assert summary["parity"]["missing_mismatches"] == 0


@pytest.mark.stack
def test_no_request_failed(summary):
    assert summary["serving"]["requests"] == 50
    assert summary["serving"]["errors"] == 0


@pytest.mark.stack
def test_what_asked_for_the_training_is_told(summary):
    began = [step for step in summary["retrain"]["transitions"] if step["from_state"] == "idle"]
    asked = summary["retrain"]["asked_for_by"]
    assert (asked is not None) == summary["retrain"]["triggered"]
    assert asked is None or any(asked.endswith("; ".join(step["reasons"])) for step in began)


@pytest.mark.stack
def test_the_unserved_days_ask_for_no_training(summary):
    keys = [step["trigger_key"] for step in summary["retrain"]["transitions"]]
    assert not [key for key in keys if key.startswith("floor")]


@pytest.mark.stack
def test_a_promotion_is_seen_by_the_running_service_and_only_then(summary):
    seen = summary["serving"]["promotion_seen"]
    assert (seen is not None) == summary["retrain"]["promoted"]


@pytest.mark.stack
def test_the_page_needs_nothing_from_outside(summary):
    path = next(name for name in summary["wrote"] if name.endswith("report.html"))
    page = Path(path).read_text()
    assert "<script" not in page
    assert "src=" not in page
    assert page.count("<svg") >= 6
