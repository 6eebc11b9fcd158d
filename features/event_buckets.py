"""Parquet files of events become buckets on disk by hash of the entity, a batch at a time.

All events of an entity land in one bucket, in the order in which the files hold them. Memory
holds one batch, however many rows or how large the files' row groups are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.event_tables import EventColumns, check_events
from features.windows import Integers, group_rows

ROWS_PER_BATCH = 1 << 18
MAX_BUCKETS = 500
"""Each bucket is an open file while rows are split; systems commonly allow 1,024."""


@dataclass(frozen=True)
class Bucket:
    """Events of some entities, as an Arrow IPC file."""

    path: Path
    num_rows: int

    def load(self) -> pa.Table:
        """Read the whole bucket."""
        with pa.OSFile(str(self.path)) as source:
            return pa.ipc.open_file(source).read_all()

    def find_largest_entity(self, entity: str) -> tuple[object, int]:
        """Find the entity with the most events here, and how many it has."""
        with pa.memory_map(str(self.path)) as source:
            counts = pc.value_counts(pa.ipc.open_file(source).read_all()[entity])
            largest = counts[int(np.argmax(counts.field("counts").to_numpy()))]
            return largest["values"].as_py(), largest["counts"].as_py()


def read_events(
    files: Sequence[Path], columns: EventColumns, types: pa.Schema
) -> Iterator[pa.Table]:
    """Read parquet files in the order given, as tables of at most ``ROWS_PER_BATCH`` rows.

    Args:
        files: Parquet files.
        columns: Which of their columns is which.
        types: From ``EventColumns.choose_types``, the same for all files.

    Yields:
        Events in their types.

    Raises:
        ValueError: As ``check_events``, naming the file.
    """
    for path in files:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            try:
                columns.choose_types(file.schema_arrow)
                for batch in file.iter_batches(ROWS_PER_BATCH, columns=types.names):
                    yield check_events(pa.Table.from_batches([batch]), columns, types)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error


def split_by_entity(
    events: Iterator[pa.Table],
    folder: Path,
    *,
    entity: str,
    types: pa.Schema,
    num_buckets: int,
    advance: Callable[[float], None],
) -> list[Bucket]:
    """Write each event to its entity's bucket.

    Args:
        events: From ``read_events``.
        folder: Where the buckets go.
        entity: The column to split by.
        types: The events' columns and types.
        num_buckets: How many buckets.
        advance: Told how many rows were written.

    Returns:
        ``num_buckets`` buckets; some may be empty.
    """
    paths = [folder / f"bucket-{number:05d}.arrow" for number in range(num_buckets)]
    num_rows = np.zeros(num_buckets, np.int64)
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_file(str(path), types)) for path in paths]
        for table in events:
            numbers = number_buckets(table[entity], num_buckets)
            order, starts = group_rows(numbers, np.zeros_like(numbers), num_entities=num_buckets)
            sorted_rows = table.take(pa.array(order)).combine_chunks()
            for bucket in np.flatnonzero(np.diff(starts)):
                start, end = starts[bucket], starts[bucket + 1]
                writers[bucket].write_table(sorted_rows.slice(start, end - start))
            num_rows += np.diff(starts)
            advance(table.num_rows)
    return [Bucket(path, int(rows)) for path, rows in zip(paths, num_rows, strict=True)]


def number_buckets(entities: pa.ChunkedArray, num_buckets: int) -> Integers:
    """Number the bucket of each entity: a hash of its value, the same in every process.

    >>> number_buckets(pa.chunked_array([["ann", "bob", "ann"]]), 1).tolist()
    [0, 0, 0]
    """
    coded = entities.combine_chunks().dictionary_encode()
    names = np.asarray(coded.dictionary.to_numpy(zero_copy_only=False))
    hashes = pd.util.hash_array(names, categorize=False)
    buckets: Integers = (hashes % np.uint64(num_buckets)).astype(np.int64)[coded.indices.to_numpy()]
    return buckets
