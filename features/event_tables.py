"""An Arrow table of events, in any order, becomes a table of windowed aggregates at each event.

What is computed is a plain function of grouped events, such as
``features.fraud_windows.aggregate_customer_spend``. Each entity is computed by itself, in time
order and then in the table's order: what else the table holds changes no digit of its values.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.fraud_windows import Grouped
from features.windows import Floats, Grouping, Integers, group_rows

Aggregate = Callable[..., dict[str, Floats]]
"""From grouped events and one float array per value column to one array per feature."""
ROWS_PER_BLOCK = 1 << 18
"""Two megabytes per column."""
TIME_TYPE = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class EventColumns:
    """Which columns of a table of events are which.

    Attributes:
        entity: Whose windows these are, as ``customer_id``; any type that can be compared.
        time: When the event happened, with a time zone.
        values: Numbers handed to the aggregate, in its order, as ``amount``.
        keep: Further columns that pass through to the result, as ``transaction_id``.
    """

    entity: str
    time: str = "event_time"
    values: tuple[str, ...] = ("amount",)
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Every column, once."""
        return list(dict.fromkeys((self.entity, self.time, *self.values, *self.keep)))

    def choose_types(self, schema: pa.Schema) -> pa.Schema:
        """Choose the types that columns are computed with: microseconds, float64, plain ids.

        Raises:
            ValueError: If a column is missing, or times have no time zone.
        """
        missing = [name for name in self.names if name not in schema.names]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}; there are {', '.join(schema.names)}")
        time = schema.field(self.time).type
        if not pa.types.is_timestamp(time) or time.tz is None:
            raise ValueError(f"column {self.time} holds {time}; write timestamps with time zone")
        return pa.schema([(name, self._choose_type(schema.field(name))) for name in self.names])

    def _choose_type(self, field: pa.Field) -> pa.DataType:
        if field.name == self.time:
            return TIME_TYPE
        if field.name in self.values:
            return pa.float64()
        return field.type.value_type if pa.types.is_dictionary(field.type) else field.type


def check_events(events: pa.Table, columns: EventColumns, types: pa.Schema) -> pa.Table:
    """Bring events to their types.

    Args:
        events: At least the columns of ``types``.
        columns: Which is which.
        types: From ``EventColumns.choose_types``.

    Returns:
        The columns of ``types``, in that order.

    Raises:
        ValueError: If a column is missing or of another type, an entity or a time is null, or a
            value is not a finite number.
    """
    columns.choose_types(events.schema)
    try:
        events = events.select(types.names).cast(types)
    except pa.ArrowInvalid as error:
        raise ValueError(f"columns of other types than expected: {error}") from error
    for name in (columns.entity, columns.time):
        if events[name].null_count:
            raise ValueError(
                f"column {name} holds {events[name].null_count} nulls; drop those rows"
            )
    for name in columns.values:
        num_finite = pc.sum(pc.is_finite(events[name])).as_py() or 0
        if num_finite < events.num_rows:
            bad = events.num_rows - num_finite
            raise ValueError(f"column {name} holds {bad} values that are no finite number")
    return events


def aggregate_table(
    events: pa.Table, *, columns: EventColumns, aggregate: Aggregate, threads: int = 1
) -> pa.Table:
    """Compute windowed aggregates at every event of a table.

    Whole entities are computed together, some ``ROWS_PER_BLOCK`` rows at a time, so that what is
    needed in between stays small.

    Args:
        events: One row per event, in any order.
        columns: Which column is which.
        aggregate: Called with ``Grouped`` events and one array per ``columns.values``, once per
            block.
        threads: Blocks computed side by side.

    Returns:
        Entity, time and kept columns, then one column per feature; entity after entity, in time
        order within each.

    Raises:
        ValueError: As ``check_events``.
    """
    events = check_events(events, columns, columns.choose_types(events.schema)).combine_chunks()
    coded = events[columns.entity].combine_chunks().dictionary_encode()
    grouping = group_rows(
        coded.indices.to_numpy().astype(np.int64),
        _to_microseconds(events[columns.time]),
        num_entities=len(coded.dictionary),
    )
    compute = partial(_compute_block, events, grouping, columns=columns, aggregate=aggregate)
    with ThreadPoolExecutor(threads) as pool:
        return pa.concat_tables(pool.map(compute, *_cut_blocks(grouping.starts)))


def _cut_blocks(starts: Integers) -> tuple[list[int], list[int]]:
    """Cut groups into blocks of about ``ROWS_PER_BLOCK`` rows: the first and last of each.

    >>> _cut_blocks(np.array([0, ROWS_PER_BLOCK, ROWS_PER_BLOCK + 1, ROWS_PER_BLOCK + 2]))
    ([0, 1], [1, 3])
    """
    num_blocks = 1 + starts[-1] // ROWS_PER_BLOCK
    borders = np.searchsorted(starts, np.linspace(0, starts[-1], num_blocks + 1))
    edges = np.unique([0, *borders[1:-1], starts.size - 1]).tolist()
    return (edges[:-1], edges[1:]) if len(edges) > 1 else ([0], [0])


def _compute_block(
    events: pa.Table,
    grouping: Grouping,
    first: int,
    last: int,
    *,
    columns: EventColumns,
    aggregate: Aggregate,
) -> pa.Table:
    """Compute the groups ``[first, last)``."""
    starts = grouping.starts[first : last + 1]
    block = events.take(pa.array(grouping.order[starts[0] : starts[-1]]))
    times, starts = _to_microseconds(block[columns.time]), starts - starts[0]
    values = (block[name].to_numpy() for name in columns.values)
    features = aggregate(Grouped(times, starts, times, starts), *values)
    kept = dict.fromkeys((columns.entity, columns.time, *columns.keep))
    return pa.table({**{name: block[name] for name in kept}, **features})


def _to_microseconds(times: pa.ChunkedArray) -> Integers:
    microseconds: Integers = times.cast(pa.int64()).to_numpy()
    return microseconds
