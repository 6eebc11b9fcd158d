"""One engine, one model and one process become seconds per batch, by number of rows.

``configs.benchmark.measure_in_a_process`` calls ``measure_engine`` in a fresh process each, so that
no engine's threads wait on another's. Rows start as a float64 matrix in the host's memory and end
as margins there: what a device copies to and fro is inside the time.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime

from training.encoding import Floats

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
    """Call LightGBM's C API, as a server would: its Python wrapper takes longer than one row.

    Source: LightGBM C API, ``LGBM_BoosterPredictForMat``; data type 1 is float64, prediction type 1
        the raw score.
    """
    booster = lightgbm.Booster(model_str=content.decode())
    library, handle = lightgbm.basic._LIB, booster._handle
    parameters = f"num_threads={threads}".encode()
    num_answers = ctypes.c_int64()

    def score(rows: Floats) -> Floats:
        margins = np.empty(len(rows))
        status = library.LGBM_BoosterPredictForMat(
            handle,
            rows.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int(1),
            ctypes.c_int32(rows.shape[0]),
            ctypes.c_int32(rows.shape[1]),
            ctypes.c_int(1),  # row by row
            ctypes.c_int(1),
            ctypes.c_int(0),
            ctypes.c_int(-1),  # every tree
            ctypes.c_char_p(parameters),
            ctypes.byref(num_answers),
            margins.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        )
        assert booster is not None, "the handle is the booster's, which must live as long"
        assert (status, num_answers.value) == (0, len(rows)), library.LGBM_GetLastError()
        return margins

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
