"""Batch sizes and engines become a benchmark: from which size on a GPU is worth its copies.

Trees and a network of the same inputs; each CPU engine with one thread and with all cores, the
faster counted. The network's engines must agree on the margins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from configs.benchmark import Target, build_benchmark, measure_in_a_process
from configs.files import write_whole
from configs.progress import show_progress
from serving.device import MAX_DIFFERENCE
from serving.device_engines import ENGINES, measure_engine, score_once
from serving.device_models import TimedModels, prepare_models
from serving.device_picture import plot_batch_times

SIZES = tuple(4**power for power in range(9))
"""1 to 65,536 rows."""
GPU = "torch_cuda"
CPU_ENGINES = tuple(name for name in ENGINES if name != GPU)
NUM_COMPARED = 1000

Row = dict[str, Any]
Times = Mapping[str, Mapping[int, float]]
"""Microseconds per batch, by engine and number of rows."""


def run_bench_device(
    *,
    runs: Path | None = None,
    sizes: Sequence[int] = SIZES,
    seed: int = 7,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Measure every engine at every batch size, the GPU where there is one.

    Args:
        runs: Where a champion may be; ``None`` to fit models on invented rows.
        sizes: Rows of a batch.
        seed: Of what is invented and fitted.
        picture: Where a picture of the rows goes, as SVG; ``None`` for none.

    Returns:
        As ``configs.benchmark.build_benchmark``, with ``models`` and ``gpu`` for a person, and
        ``crossover_rows``: the smallest batch that the GPU scores faster than any CPU engine,
        copies included; ``None`` if it never does or there is none.

    Raises:
        ValueError: If a size is below 1.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 1:
        raise ValueError("--rows must be at least 1")
    gpu = _find_gpu()
    engines = [name for name in ENGINES if name != GPU or gpu]
    with tempfile.TemporaryDirectory(prefix="bench-device-") as folder:
        with show_progress("Preparing the models"):
            models = prepare_models(runs, seed=seed)
        matrix = Path(folder) / "matrix.npy"
        np.save(matrix, models.matrix)
        times = _measure(engines, models, matrix, sizes)
        difference = _compare(engines, models, Path(folder))
    rows, crossover_rows = build_rows(times), find_crossover(times)
    targets = build_targets(crossover_rows, difference, largest=sizes[-1])
    result = build_benchmark(rows, targets)
    result |= {
        "models": models.source,
        "gpu": gpu or "none: torch sees no CUDA device, so the CPU engines alone were measured",
        "crossover_rows": crossover_rows,
    }
    result["environment"] |= {"onnxruntime": version("onnxruntime"), "gpu": gpu}
    if picture is not None:
        with write_whole(picture) as part:
            part.write_text(
                plot_batch_times(times, crossover_rows=crossover_rows), encoding="utf-8"
            )
        result["wrote"].append(str(picture))
    return result


def build_rows(times: Times) -> list[Row]:
    """Make one row per batch size.

    >>> build_rows({"lightgbm": {10: 40.0}, "torch_cuda": {10: 20.0}})
    [{'name': '10 rows', 'lightgbm_us': 40.0, 'torch_cuda_us': 20.0,
      'fastest': 'torch_cuda', 'fastest_rows_per_second': 500000.0}]
    """
    rows = []
    for size in next(iter(times.values())):
        taken = {engine: sizes[size] for engine, sizes in times.items()}
        fastest = min(taken, key=taken.__getitem__)
        rows.append(
            {
                "name": f"{size:,} rows",
                **{f"{engine}_us": microseconds for engine, microseconds in taken.items()},
                "fastest": fastest,
                "fastest_rows_per_second": size / taken[fastest] * 1e6,
            }
        )
    return rows


def find_crossover(times: Times) -> int | None:
    """Find the smallest batch that the GPU scores faster than every CPU engine.

    >>> cpu = {1: 5.0, 4: 20.0, 16: 80.0}
    >>> find_crossover({"onnx_runtime": cpu, "torch_cuda": {1: 30.0, 4: 30.0, 16: 31.0}})
    16
    """
    for size, microseconds in times.get(GPU, {}).items():
        if microseconds < min(times[name][size] for name in CPU_ENGINES if name in times):
            return size
    return None


def build_targets(
    crossover_rows: int | None, difference: float | None, *, largest: int
) -> list[Target]:
    """Hold the run to what was promised.

    Args:
        crossover_rows: From ``find_crossover``.
        difference: Largest between the torch engines' margins and ONNX Runtime's, log-odds.
        largest: The largest batch measured.
    """
    return [
        Target("torch_difference_from_onnx_runtime", difference, MAX_DIFFERENCE, "at_most"),
        Target("gpu_crossover_rows", crossover_rows, largest, "at_most"),
    ]


def _find_gpu() -> str | None:
    # Imported here because this module is imported where no device is asked for.
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _measure(
    engines: Sequence[str], models: TimedModels, matrix: Path, sizes: Sequence[int]
) -> dict[str, dict[int, float]]:
    """Take the faster of one thread and all cores, for each engine and size."""
    threads = sorted({1, os.cpu_count() or 1})
    times: dict[str, dict[int, float]] = {engine: {} for engine in engines}
    plan = [(engine, count) for engine in engines for count in (threads if engine != GPU else [1])]
    with show_progress("Scoring batches", total=len(plan)) as advance:
        for engine, count in plan:
            figures = measure_in_a_process(
                measure_engine,
                engine=engine,
                content=_get_content(models, engine),
                matrix=matrix,
                sizes=sizes,
                threads=count,
            )
            for size in sizes:
                known = times[engine].get(size, float("inf"))
                times[engine][size] = min(known, figures[str(size)])
            advance(1)
    return times


def _compare(engines: Sequence[str], models: TimedModels, folder: Path) -> float:
    """Find the largest difference between the network's engines."""
    matrix = folder / "compared.npy"
    np.save(matrix, models.matrix[:NUM_COMPARED])
    answers = {}
    for engine in (name for name in engines if name != "lightgbm"):
        path = folder / f"{engine}.npy"
        content = _get_content(models, engine)
        measure_in_a_process(
            score_once, engine=engine, content=content, matrix=matrix, answers=path
        )
        answers[engine] = np.load(path)
    expected = answers.pop("onnx_runtime")
    return max(float(np.max(np.abs(margins - expected))) for margins in answers.values())


def _get_content(models: TimedModels, engine: str) -> bytes:
    return models.trees if engine == "lightgbm" else models.network
