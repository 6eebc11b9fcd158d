"""An Arrow table of events, in any order, becomes a table of windowed aggregates at each event.

What is computed is a plain function of grouped events, such as
``features.fraud_windows.aggregate_customer_spend``. Each entity is computed by itself, in time
order and then in the table's order: what else the table holds changes no digit of its values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.fraud_windows import Grouped
from features.windows import Floats, group_rows

Aggregate = Callable[..., dict[str, Floats]]
"""From grouped events and one float array per value column to one array per feature."""
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


def aggregate_table(events: pa.Table, *, columns: EventColumns, aggregate: Aggregate) -> pa.Table:
    """Compute windowed aggregates at every event of a table.

    Args:
        events: One row per event, in any order.
        columns: Which column is which.
        aggregate: Called with ``Grouped`` events and one array per ``columns.values``.

    Returns:
        Entity, time and kept columns, then one column per feature; entity after entity, in time
        order within each.

    Raises:
        ValueError: As ``check_events``.
    """
    events = check_events(events, columns, columns.choose_types(events.schema))
    coded = events[columns.entity].combine_chunks().dictionary_encode()
    times = events[columns.time].combine_chunks().cast(pa.int64()).to_numpy()
    grouping = group_rows(
        coded.indices.to_numpy().astype(np.int64), times, num_entities=len(coded.dictionary)
    )
    times = times[grouping.order]
    groups = Grouped(times, grouping.starts, times, grouping.starts)
    values = (events[name].to_numpy()[grouping.order] for name in columns.values)
    kept = dict.fromkeys((columns.entity, columns.time, *columns.keep))
    result = events.select(list(kept)).take(pa.array(grouping.order))
    for name, feature in aggregate(groups, *values).items():
        result = result.append_column(name, pa.array(feature))
    return result
