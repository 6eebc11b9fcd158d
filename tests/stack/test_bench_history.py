"""``throughline bench history`` at a tiny size, its stores in processes of their own."""

import subprocess
import sys

import pytest

from configs.files import read_json
from configs.schema import load_fraud_config
from features.bench_history import run_bench_history

TINY = "{tiny: {num_customers: 30, num_merchants: 20, num_days: 20}}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("bench") / "runs"


@pytest.fixture(scope="module")
def result(runs):
    """What the command wrote as JSON."""
    command = [
        *(sys.executable, "-m", "throughline", "bench", "history", "--size", "tiny"),
        *("--set", f"data.sizes={TINY}", "--runs", str(runs), "--sample-rows", "200"),
        *("--json", str(runs / "result.json")),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return read_json(runs / "result.json")


@pytest.mark.stack
def test_the_whole_history_and_both_stores_are_measured(result):
    whole, ours, stock = result["rows"]
    assert whole["rows"] > ours["rows"] == stock["rows"] >= 200
    for row in (whole, ours, stock):
        assert row["rows_per_second"] == pytest.approx(row["rows"] / row["seconds"])
        assert row["peak_memory_gb"] > 0.1


@pytest.mark.stack
def test_feasts_own_store_gives_the_same_answers(result):
    stock = result["rows"][-1]
    assert stock["compared_rows"] + stock["dropped_rows"] == stock["rows"]
    assert stock["compared_rows"] >= 200
    assert stock["max_abs_difference"] <= 1e-9
    assert stock["missing_mismatches"] == 0


@pytest.mark.stack
def test_a_small_world_does_not_meet_the_targets_of_a_full_one(result):
    met = {target["name"]: target["met"] for target in result["targets"]}
    assert met == {
        "seconds": False,
        "peak_memory_gb": False,
        "max_abs_difference": True,
        "missing_mismatches": True,
    }


@pytest.mark.stack
def test_a_folder_with_a_world_of_another_size_is_refused(result, runs):
    assert result["rows"]
    with pytest.raises(ValueError, match="--size tiny or another --runs"):
        run_bench_history(load_fraud_config(changes={"runs": str(runs)}), sample_rows=200)
