"""Parquet files of events, more than memory holds, become parquet files of windowed aggregates.

Events are split into buckets on disk by entity; then each bucket is computed in memory, by the
same function as a table that fits (``features.event_tables``). The values are equal to the last
digit, however many files and buckets there are.

Invariant: the result's folder appears when it is complete, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.files import check_free_space, write_folder_whole
from configs.progress import show_progress
from features.event_buckets import MAX_BUCKETS, Bucket, read_events, split_by_entity
from features.event_tables import Aggregate, EventColumns, aggregate_table

BASE_GB = 0.7
"""What the interpreter, its libraries and one batch take, 10^9 bytes; measured 0.5 on Linux."""
FILL = 0.5
"""How full an average bucket is, of what memory allows: entities differ in size."""


@dataclass(frozen=True)
class Plan:
    """How a history is cut so that it fits.

    Attributes:
        num_rows: Events in all files.
        num_buckets: How many parts they are split into.
        max_rows: How many rows a bucket may hold.
        bytes_per_row: Memory one row takes while its bucket is computed.
        disk_bytes: Buckets and result together.
    """

    num_rows: int
    num_buckets: int
    max_rows: int
    bytes_per_row: int
    disk_bytes: int


def aggregate_out_of_core(
    files: Sequence[Path],
    folder: Path,
    *,
    columns: EventColumns,
    aggregate: Aggregate,
    memory_gb: float = 4.0,
    threads: int = 1,
) -> list[Path]:
    """Compute windowed aggregates at every event of parquet files, in bounded memory.

    All events of one entity are computed at once, so the entity with the most must fit: where it
    does not, an error says before any window is computed how much memory would do.

    Args:
        files: Parquet files of events, rows in any order.
        folder: Where the result goes; must not exist, or be empty. Buckets need room beside it.
        columns: Which column is which; as ``EventColumns("customer_id")``.
        aggregate: As ``features.fraud_windows.aggregate_customer_spend``: called with grouped
            events and one array per ``columns.values``.
        memory_gb: What the process may take, 10^9 bytes, libraries included.
        threads: Buckets computed side by side; they share the memory.

    Returns:
        The files written: together one row per event, entity after entity, in time order
        within each; no entity is in two files.

    Raises:
        ValueError: If there are no files, a column is missing or holds nulls, or memory is too
            small for the files or for their largest entity.
        OSError: If the disk has not enough room.
    """
    types = _choose_types(files, columns)
    plan = plan_buckets(
        files, columns=columns, aggregate=aggregate, memory_gb=memory_gb, threads=threads
    )
    check_free_space(folder, plan.disk_bytes)
    with write_folder_whole(folder) as part:
        with show_progress(f"Splitting by {columns.entity}", total=plan.num_rows) as advance:
            buckets = split_by_entity(
                read_events(files, columns, types),
                part,
                entity=columns.entity,
                types=types,
                num_buckets=plan.num_buckets,
                advance=advance,
            )
        _check_buckets(buckets, plan, columns.entity, threads=threads)
        compute = partial(_compute_bucket, columns=columns, aggregate=aggregate)
        with show_progress("Computing windows", total=plan.num_rows) as advance:
            _compute_side_by_side(compute, buckets, threads=threads, advance=advance)
    return sorted(folder.glob("*.parquet"))


def plan_buckets(
    files: Sequence[Path],
    *,
    columns: EventColumns,
    aggregate: Aggregate,
    memory_gb: float,
    threads: int,
) -> Plan:
    """Choose how many buckets let each be computed within the memory given.

    Args:
        files: Parquet files of events.
        columns: Which column is which.
        aggregate: Asked which features it returns.
        memory_gb: What the process may take, 10^9 bytes.
        threads: Buckets in memory at once.

    Returns:
        The plan.

    Raises:
        ValueError: If the memory is too small.
    """
    types = _choose_types(files, columns)
    num_rows = sum(pq.read_metadata(path).num_rows for path in files)
    first = next(read_events(files, columns, types), types.empty_table())
    input_bytes = math.ceil(first.nbytes / max(1, first.num_rows))
    empty = aggregate_table(types.empty_table(), columns=columns, aggregate=aggregate)
    num_features = empty.num_columns - len({columns.entity, columns.time, *columns.keep})
    # Read, joined and reordered; a dozen arrays of the kernel's; features, and their encoding.
    bytes_per_row = 3 * input_bytes + 8 * (12 + 2 * num_features)
    max_rows = int((memory_gb - BASE_GB) * 1e9 / threads / bytes_per_row)
    smallest_gb = BASE_GB + max(1, num_rows) * bytes_per_row * threads / (FILL * MAX_BUCKETS * 1e9)
    if max_rows < 1 or memory_gb < smallest_gb:
        raise ValueError(
            f"{memory_gb:g} GB of memory is too little for {num_rows:,} rows; "
            f"give at least {math.ceil(10 * smallest_gb) / 10:g}"
        )
    return Plan(
        num_rows=num_rows,
        num_buckets=max(1, math.ceil(num_rows / (FILL * max_rows))),
        max_rows=max_rows,
        bytes_per_row=bytes_per_row,
        disk_bytes=num_rows * (2 * input_bytes + 8 * num_features),
    )


def _choose_types(files: Sequence[Path], columns: EventColumns) -> pa.Schema:
    if not files:
        raise ValueError("no parquet files to read; check the folder or the pattern")
    try:
        return columns.choose_types(pq.read_schema(files[0]))
    except ValueError as error:
        raise ValueError(f"{files[0]}: {error}") from error


def _check_buckets(buckets: Sequence[Bucket], plan: Plan, entity: str, *, threads: int) -> None:
    largest = max(buckets, key=lambda bucket: bucket.num_rows)
    if largest.num_rows <= plan.max_rows:
        return
    name, rows = largest.find_largest_entity(entity)
    needed = BASE_GB + largest.num_rows * plan.bytes_per_row * threads / 1e9
    raise ValueError(
        f"{entity} {name} alone has {rows:,} of {plan.num_rows:,} rows, and is computed at once: "
        f"give at least {math.ceil(10 * needed) / 10:g} GB of memory, or fewer threads"
    )


def _compute_side_by_side(
    compute: Callable[[Bucket], None],
    buckets: Sequence[Bucket],
    *,
    threads: int,
    advance: Callable[[float], None],
) -> None:
    pool = ThreadPoolExecutor(threads)
    try:
        for bucket, _ in zip(buckets, pool.map(compute, buckets), strict=True):
            advance(bucket.num_rows)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C or an error no further bucket begins


def _compute_bucket(bucket: Bucket, *, columns: EventColumns, aggregate: Aggregate) -> None:
    """Replace a bucket by the windows of its events."""
    events = bucket.load()
    bucket.path.unlink()
    if events.num_rows:
        result = aggregate_table(events, columns=columns, aggregate=aggregate)
        features = {*result.column_names} - {*events.column_names}
        del events
        pq.write_table(
            result,
            bucket.path.with_suffix(".parquet"),
            compression="zstd",
            # Means hardly repeat: a dictionary of them is built to be given up.
            use_dictionary=[name for name in result.column_names if name not in features],
        )
