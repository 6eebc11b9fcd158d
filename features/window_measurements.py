"""One engine, one set of transactions and one process become seconds, and answers to compare.

``configs.benchmark.measure_in_a_process`` calls these in a fresh process each, so that a peak of
memory is one engine's own: its library and the rows it was given included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.out_of_core import aggregate_out_of_core
from features.window_engines import COLUMNS, ENGINES, FEATURES, THREADS, aggregate_card_windows

NUM_RUNS = 3
MAX_SECONDS = 20.0
"""Runs are repeated, and their median taken, while they took less than this together."""


def measure_engine(*, engine: str, files: Sequence[Path], answers: Path) -> dict[str, float]:
    """Measure one engine on rows in memory, and write its answers.

    Args:
        engine: A key of ``ENGINES``.
        files: Transactions, in time order.
        answers: Where ``transaction_id`` and the features go, as parquet.

    Returns:
        ``seconds``: the median run; one before, on few rows, compiles and is not counted.
        ``cpu_seconds``: the mean run's, of all threads; others' load moves it less.
    """
    transactions = pa.concat_tables([pq.read_table(path) for path in files])
    ENGINES[engine](transactions.slice(0, 1000))()
    compute = ENGINES[engine](transactions)
    seconds: list[float] = []
    cpu_start = time.process_time()
    while not seconds or (len(seconds) < NUM_RUNS and sum(seconds) < MAX_SECONDS):
        result = None  # the run before is not held while the next is measured
        start = time.perf_counter()
        result = compute()
        seconds.append(time.perf_counter() - start)
    cpu_seconds = (time.process_time() - cpu_start) / len(seconds)
    table = pa.table(result).select(["transaction_id", *FEATURES])
    pq.write_table(table, answers, use_dictionary=False)
    return {"seconds": statistics.median(seconds), "cpu_seconds": cpu_seconds}


def compare_answers(ours: Path, theirs: Path) -> float:
    """Find the largest relative difference between two files of answers.

    Args:
        ours: ``transaction_id`` and the features, in any order of rows.
        theirs: The same.

    Returns:
        The difference, relative to ours; infinite where only one of them knows a value.
    """

    def read_sorted(path: Path) -> Callable[[str], np.ndarray]:
        order = np.argsort(
            pq.read_table(path, columns=["transaction_id"])["transaction_id"].to_numpy()
        )
        return lambda name: pq.read_table(path, columns=[name])[name].to_numpy()[order]

    read_ours, read_theirs, largest = read_sorted(ours), read_sorted(theirs), 0.0
    for name in FEATURES:
        a, b = read_ours(name).astype(np.float64), read_theirs(name).astype(np.float64)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return float("inf")
        scale = np.maximum(np.abs(a), np.finfo(np.float64).tiny)
        largest = max(largest, float(np.nanmax(np.abs(a - b) / scale, initial=0.0)))
    return largest


def measure_out_of_core(
    *, files: Sequence[Path], folder: Path, memory_gb: float
) -> dict[str, float]:
    """Measure parquet in to parquet out, compilation included, as ``measure_engine``."""
    start, cpu_start = time.perf_counter(), time.process_time()
    paths = aggregate_out_of_core(
        files,
        folder,
        columns=COLUMNS,
        aggregate=aggregate_card_windows,
        memory_gb=memory_gb,
        threads=THREADS,
    )
    seconds = time.perf_counter() - start
    assert sum(map(_count_rows, paths)) == sum(map(_count_rows, files))
    return {"seconds": seconds, "cpu_seconds": time.process_time() - cpu_start}


def _count_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)
