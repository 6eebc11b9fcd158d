"""Card transactions become a benchmark: windows from history, beside DuckDB, polars and pandas.

In memory, every engine starts from rows in time order and ends with 12 features per row; sorting
and grouping are inside the time, reading the files is not. Out of core, everything is inside: from
parquet files in to parquet files out. Every figure is of a fresh process.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.benchmark import Target, build_benchmark, measure_in_a_process
from configs.files import check_free_space, write_whole
from configs.progress import show_progress
from data.bench_transactions import write_bench_transactions
from features.window_engines import ENGINES
from features.window_measurements import compare_answers, measure_engine, measure_out_of_core
from features.window_picture import plot_rows_per_second

OURS = "throughline"
OUT_OF_CORE = f"{OURS} out of core"
DISK_BYTES_PER_ROW = 200
"""Transactions, buckets and result; the planner asks for 162 besides the transactions."""
MAX_GROWTH = 1.5
"""Linear is 1; what leaves the caches costs some of the rest, a quadratic step would be 10."""
MAX_DIFFERENCE = 1e-9

Row = dict[str, Any]


def run_bench_windows(
    *,
    sizes: Sequence[int],
    peer_rows: int,
    out_of_core_rows: int,
    memory_gb: float,
    folder: Path,
    seed: int,
    keep: bool,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Measure windows in memory beside peers, and out of core.

    Args:
        sizes: Numbers of rows computed in memory.
        peer_rows: Peers are measured up to this many rows.
        out_of_core_rows: Rows computed out of core, after a tenth of them; 0 for neither.
        memory_gb: What the out-of-core run may take, 10^9 bytes.
        folder: Where files go while it runs.
        seed: Of the transactions.
        keep: Whether files stay.
        picture: Where a picture of the rows goes, as SVG; ``None`` for none.

    Returns:
        As ``configs.benchmark.build_benchmark``.

    Raises:
        ValueError: If a size is not positive or the memory is too small.
        OSError: If the disk has no room.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 1 or out_of_core_rows < 0:
        raise ValueError("--rows must be at least 1, --out-of-core-rows at least 0")
    check_free_space(folder, max(*sizes, out_of_core_rows, 0) * DISK_BYTES_PER_ROW)
    outside = [size for size in (out_of_core_rows // 10, out_of_core_rows) if size]
    rows: list[Row] = []
    with _work_in(folder, keep=keep) as place:
        for size in sizes:
            rows += _measure_in_memory(place / f"{size}", size, peer_rows=peer_rows, seed=seed)
        for size in outside:
            rows.append(_measure_outside(place / f"{size}", size, memory_gb=memory_gb, seed=seed))
    result = build_benchmark(rows, build_targets(rows, memory_gb=memory_gb))
    result["wrote"] = [str(place)] if keep else []
    if picture is not None:
        with write_whole(picture) as part:
            part.write_text(plot_rows_per_second(rows), encoding="utf-8")
        result["wrote"].append(str(picture))
    packages = ["numba", "pyarrow", *(name for name in ENGINES if find_spec(name) and name != OURS)]
    result["environment"] |= {name: version(name) for name in packages}
    return result


def build_targets(rows: Sequence[Row], *, memory_gb: float) -> list[Target]:
    """Hold rows to what was promised.

    Args:
        rows: One per engine and size, as ``run_bench_windows`` returns them.
        memory_gb: What was allowed out of core, 10^9 bytes.

    Returns:
        The ratio to DuckDB at the smallest size in memory and the rate at the largest; how
        seconds per row grow; the peak of memory out of core; agreement with the peers.
    """
    inside = [row for row in rows if row["measured"]["engine"] == OURS]
    outside = [row for row in rows if row["measured"]["engine"] == OUT_OF_CORE]
    differences = [row["difference"] for row in rows if "difference" in row]
    smallest, largest = (_abbreviate(inside[i]["measured"]["num_rows"]) for i in (0, -1))
    targets = [
        Target(
            f"ratio_to_duckdb_at_{smallest}", inside[0].get("ratio_to_duckdb"), 20.0, "at_least"
        ),
        Target(f"rows_per_second_at_{largest}", inside[-1]["rows_per_second"], 3e6, "at_least"),
        Target("difference_from_peers", max(differences, default=None), MAX_DIFFERENCE, "at_most"),
        Target("seconds_per_row_growth", _measure_growth(inside), MAX_GROWTH, "at_most"),
    ]
    if outside:
        peak = max(row["peak_memory_gb"] for row in outside)
        growth = _measure_growth(outside)
        targets += [
            Target("out_of_core_seconds_per_row_growth", growth, MAX_GROWTH, "at_most"),
            Target("out_of_core_peak_memory_gb", peak, memory_gb, "at_most"),
        ]
    return targets


def _measure_growth(rows: Sequence[Row]) -> float:
    """Divide the seconds per row of the largest size by those of the smallest."""
    return float(rows[0]["rows_per_second"] / rows[-1]["rows_per_second"])


def _abbreviate(num_rows: int) -> str:
    """Write a number of rows short.

    >>> _abbreviate(10_000_000), _abbreviate(20_000), _abbreviate(1234)
    ('10m', '20k', '1234')
    """
    for unit, size in (("m", 1_000_000), ("k", 1_000)):
        if num_rows % size == 0:
            return f"{num_rows // size}{unit}"
    return str(num_rows)


def _measure_in_memory(place: Path, size: int, *, peer_rows: int, seed: int) -> list[Row]:
    """Measure every engine at one size, ours first: the peers' answers are held to ours."""
    engines = [engine for engine in ENGINES if engine == OURS or size <= peer_rows]
    files, rows = _write_transactions(place / "transactions", size, seed=seed), []
    with show_progress(f"Computing {size:,} rows in memory", total=len(engines)) as advance:
        for engine in engines:
            rows.append(_measure_engine(engine, files, place))
            advance(1)
    measured = {row["measured"]["engine"]: row for row in rows if "seconds" in row}
    if "duckdb" in measured:
        for row in measured.values():
            row["ratio_to_duckdb"] = measured["duckdb"]["seconds"] / row["seconds"]
    return rows


def _measure_engine(engine: str, files: Sequence[Path], place: Path) -> Row:
    num_rows = sum(pq.read_metadata(path).num_rows for path in files)
    row = _name_row(engine, num_rows)
    if engine != OURS and not find_spec(engine):
        return {**row, "note": "not installed; it is in the extra `bench`"}
    answers = place / f"{engine}.parquet"
    row |= measure_in_a_process(measure_engine, engine=engine, files=files, answers=answers)
    row["rows_per_second"] = num_rows / row["seconds"]
    if engine != OURS:
        row["difference"] = compare_answers(place / f"{OURS}.parquet", answers)
    return row


def _measure_outside(place: Path, size: int, *, memory_gb: float, seed: int) -> Row:
    files = _write_transactions(place / "transactions", size, seed=seed)
    figures = measure_in_a_process(
        measure_out_of_core, files=files, folder=place / "windows", memory_gb=memory_gb
    )
    return {
        **_name_row(OUT_OF_CORE, size),
        **figures,
        "rows_per_second": size / figures["seconds"],
    }


def _name_row(engine: str, num_rows: int) -> Row:
    """Begin a row; what is nested is for scripts, and stays out of the terminal's table."""
    name = f"{engine}, {_abbreviate(num_rows)}"
    return {"name": name, "measured": {"engine": engine, "num_rows": num_rows}}


def _write_transactions(folder: Path, size: int, *, seed: int) -> list[Path]:
    with show_progress(f"Writing {size:,} transactions", total=size) as advance:
        return write_bench_transactions(folder, num_rows=size, seed=seed, advance=advance)


@contextmanager
def _work_in(folder: Path, *, keep: bool) -> Iterator[Path]:
    """Give a folder of one's own inside ``folder``; it is removed in the end unless kept."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder, prefix="windows-"))
    try:
        yield place
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
