"""One engine, one model and one process become seconds per batch, by number of rows.

``configs.benchmark.measure_in_a_process`` calls ``measure_engine`` in a fresh process each, so that
no engine's threads wait on another's. Rows start as a float64 matrix in the host's memory and end
as margins there: what a device copies to and fro is inside the time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime

from training.encoding import Floats
from training.scorers import load_scorer

Score = Callable[[Floats], Floats]

MIN_RUNS = 5
SECONDS_PER_SIZE = 0.3
"""Runs are repeated, and their median taken, while they took less than this together."""


def measure_engine(
    *, engine: str, content: bytes, matrix: Path, sizes: Sequence[int], threads: int
) -> dict[str, float]:
    """Time one engine at every number of rows.

    Args:
        engine: A key of ``ENGINES``.
        content: The model's file.
        matrix: Raw model columns ``(rows, features)``, as ``.npy``; repeated where a size is
            larger.
        sizes: Rows of a batch.
        threads: How many the engine may use.

    Returns:
        Median microseconds per batch by number of rows, as ``{"16": 30.5}``.
    """
    score, rows = ENGINES[engine](content, threads), np.load(matrix)
    return {str(size): _time_calls(score, np.resize(rows, (size, rows.shape[1]))) for size in sizes}


def score_once(*, engine: str, content: bytes, matrix: Path, answers: Path) -> dict[str, float]:
    """Write an engine's margins for a matrix, as ``measure_engine`` would compute them."""
    np.save(answers, ENGINES[engine](content, 1)(np.load(matrix)))
    return {}


def _time_calls(score: Score, rows: Floats) -> float:
    for _ in range(2):  # buffers grow, kernels are chosen
        score(rows)
    seconds: list[float] = []
    while len(seconds) < MIN_RUNS or sum(seconds) < SECONDS_PER_SIZE:
        start = time.perf_counter()
        score(rows)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e6


def _open_lightgbm(content: bytes, threads: int) -> Score:
    """Score as the service does with one thread; with several, as LightGBM does by itself."""
    if threads == 1:
        return load_scorer("lightgbm", content).margins
    booster = lightgbm.Booster(model_str=content.decode())

    def score(rows: Floats) -> Floats:
        return np.asarray(booster.predict(rows, raw_score=True, num_threads=threads))

    return score


def _open_onnx_runtime(content: bytes, threads: int) -> Score:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def score(rows: Floats) -> Floats:
        return np.asarray(session.run(["margin"], {"matrix": rows})[0])

    return score


def _open_torch(device: str) -> Callable[[bytes, int], Score]:
    def open_engine(content: bytes, threads: int) -> Score:
        # Imported here: the other engines' processes need no torch, nor its threads.
        import torch

        from training.torch_scorer import TorchScorer

        torch.set_num_threads(threads)
        return TorchScorer(content, device=device).margins

    return open_engine


ENGINES: Mapping[str, Callable[[bytes, int], Score]] = {
    "lightgbm": _open_lightgbm,
    "onnx_runtime": _open_onnx_runtime,
    "torch_cpu": _open_torch("cpu"),
    "torch_cuda": _open_torch("cuda"),
}
"""By name: from a model's file and a number of threads to what scores rows."""
