"""The device benchmark at a small size: engines answer alike, and a missing GPU is said."""

import sys

import lightgbm
import numpy as np
import pytest
import torch

import throughline
from configs.files import read_json
from serving import device_models
from serving.bench_device import build_targets, find_crossover, run_bench_device
from serving.device_engines import ENGINES
from serving.device_models import prepare_models
from serving.device_picture import plot_batch_times


@pytest.fixture(scope="module")
def models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_models, "NUM_ROWS", 2000)
        return prepare_models(None, seed=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 2000])
def test_lightgbm_gives_its_own_margins_with_any_number_of_threads(models, threads, rows):
    booster = lightgbm.Booster(model_str=models.trees.decode())
    expected = booster.predict(models.matrix, raw_score=True)[:rows]
    margins = ENGINES["lightgbm"](models.trees, threads)(models.matrix[:rows])
    np.testing.assert_array_equal(margins, expected)


def test_the_trees_that_are_timed_tell_rows_apart(models):
    margins = ENGINES["lightgbm"](models.trees, 1)(models.matrix)
    assert margins.std() > 0.1


def test_torch_gives_onnx_runtimes_margins(models):
    expected = ENGINES["onnx_runtime"](models.network, 1)(models.matrix)
    margins = ENGINES["torch_cpu"](models.network, 1)(models.matrix)
    np.testing.assert_allclose(margins, expected, rtol=0, atol=1e-5)
    assert margins.std() > 0.1


def run(monkeypatch, capsys, *arguments):
    for name in throughline.ENVIRONMENT:  # set for good by main, were it not undone
        monkeypatch.setenv(name, throughline.ENVIRONMENT[name])
    monkeypatch.setattr(sys, "argv", ["throughline", "bench", "device", *arguments])
    with pytest.raises(SystemExit) as caught:
        throughline.main()
    return caught.value.code, *capsys.readouterr()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_command_measures_the_cpu_and_says_what_is_missing(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(device_models, "NUM_ROWS", 2000)
    result = tmp_path / "device.json"
    code, out, _ = run(monkeypatch, capsys, "--rows=8", "--rows=1", f"--json={result}")
    assert code == 0
    assert "none: torch sees no CUDA device" in " ".join(out.split())
    document = read_json(result)
    assert [row["name"] for row in document["rows"]] == ["1 rows", "8 rows"]
    assert set(document["rows"][0]) == {
        "name",
        "lightgbm_us",
        "onnx_runtime_us",
        "torch_cpu_us",
        "fastest",
        "fastest_rows_per_second",
    }
    targets = {target["name"]: target for target in document["targets"]}
    assert targets["torch_difference_from_onnx_runtime"]["met"] is True
    assert targets["gpu_crossover_rows"]["value"] is None
    assert targets["gpu_crossover_rows"]["met"] is False
    assert result.with_suffix(".svg").read_text().count("<svg") == 1


def test_the_help_says_what_goes_in_and_what_comes_out(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--help")
    assert code == 0
    for part in ("In:", "Out:", "Example: throughline bench device", "Next", "--json"):
        assert part in out


def test_a_batch_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="--rows"):
        run_bench_device(sizes=[0])


CPU = {"lightgbm": {1: 3.0, 4: 9.0, 16: 90.0}, "onnx_runtime": {1: 8.0, 4: 12.0, 16: 50.0}}


@pytest.mark.parametrize(
    ("gpu", "crossover_rows"),
    [
        ({1: 40.0, 4: 10.0, 16: 41.0}, 16),  # at 4 faster than one engine, not than the best
        ({1: 2.0, 4: 2.0, 16: 2.0}, 1),
        ({1: 60.0, 4: 60.0, 16: 60.0}, None),
    ],
)
def test_the_crossover_is_where_the_gpu_first_beats_the_best_cpu_engine(gpu, crossover_rows):
    assert find_crossover({**CPU, "torch_cuda": gpu}) == crossover_rows


def test_there_is_no_crossover_where_no_gpu_was_measured():
    assert find_crossover(CPU) is None


def test_a_crossover_within_the_sizes_measured_meets_its_target():
    (_, crossover) = build_targets(16, 1e-7, largest=64)
    assert crossover.is_met


def test_the_picture_has_a_line_per_engine_measured_and_marks_the_crossover():
    with_gpu = plot_batch_times({**CPU, "torch_cuda": {1: 40.0, 4: 41.0}}, crossover_rows=16)
    assert "torch, CUDA" in with_gpu
    assert "GPU wins from 16" in with_gpu
    without = plot_batch_times(CPU, crossover_rows=None)
    assert "LightGBM, CPU" in without
    assert "GPU" not in without
    assert "CUDA" not in without
