"""A batch of accepted transactions becomes new states of one partition's entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from features.fraud_state import EVENT_STATES, EventState, encode_entity, encode_id
from features.state_merge import ADDED, BEYOND_TILES, DUPLICATE, merge_states
from features.state_store import StateStore, Update
from features.stream_messages import StreamTransaction
from features.windows import Integers


@dataclass
class StreamCounts:
    """What became of the transactions read; each counts once, in its customer's partition.

    Attributes:
        accepted: Took their place in the windows.
        duplicates: Were known already and changed nothing.
        late: Came after the watermark; dead letters.
        future: Were ahead of their publisher's clock; dead letters.
        undecodable: Were no transaction; dead letters.
        beyond_tiles: Events (per entity) refused because tiles had closed over their time.
        tiled_states: States written that hold tiles, at a lower resolution.
        batches: Micro-batches written.
    """

    accepted: int = 0
    duplicates: int = 0
    late: int = 0
    future: int = 0
    undecodable: int = 0
    beyond_tiles: int = 0
    tiled_states: int = 0
    batches: int = 0

    def add(self, other: StreamCounts) -> None:
        """Add another's counts to these."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def merge_batch(
    states: StateStore,
    messages: Sequence[StreamTransaction],
    *,
    partition: int,
    num_partitions: int,
    counts: StreamCounts,
) -> list[Update]:
    """Read the states that a batch concerns, and merge the batch into them.

    Args:
        states: The online store; read, not written.
        messages: Accepted transactions, in the order they were read.
        partition: Only this partition's entities are merged.
        num_partitions: Of the log.
        counts: ``accepted``, ``duplicates``, ``beyond_tiles``, ``tiled_states`` are added to it.

    Returns:
        The states that changed.
    """
    if not messages:
        return []
    columns = build_columns(messages)
    owned: dict[str, _Owned] = {}
    for name, kind in EVENT_STATES.items():
        own = _select_entities(messages, columns, kind.key, partition, num_partitions)
        if own.entities:
            owned[name] = own
    entities = {EVENT_STATES[name].key: own.entities for name, own in owned.items()}
    held = states.read(entities, list(owned))
    updates = []
    for name, own in owned.items():
        kind = EVENT_STATES[name]
        events = build_events(columns, kind)[own.rows]
        merged = merge_states(held[name], events, own.owners, kind=kind)
        counts.beyond_tiles += int((merged.outcomes == BEYOND_TILES).sum())
        if kind.key == "customer_id":  # whose partition a transaction counts in
            counts.accepted += int((merged.outcomes == ADDED).sum())
            counts.duplicates += int((merged.outcomes == DUPLICATE).sum())
        columns_of_states = (merged.states, merged.newest.tolist(), merged.have_tiles.tolist())
        for entity, before, after, newest, has_tiles in zip(
            own.entities, held[name], *columns_of_states, strict=True
        ):
            if after is not None and after != before:
                counts.tiled_states += has_tiles
                updates.append(Update(name, entity, after, newest))
    return updates


class _Owned(NamedTuple):
    """Which messages concern a partition's entities of one kind, and whose each is."""

    rows: Integers
    owners: Integers
    entities: list[str]


def _select_entities(
    messages: Sequence[StreamTransaction],
    columns: Mapping[str, np.ndarray],
    key: str,
    partition: int,
    num_partitions: int,
) -> _Owned:
    names = list(map(attrgetter(key), messages))
    is_owned = np.fromiter((name is not None for name in names), bool, len(names))
    is_owned &= columns[key.removesuffix("_id")] % num_partitions == partition
    rows = np.flatnonzero(is_owned)
    owned = [names[row] for row in rows.tolist()]
    index = {entity: number for number, entity in enumerate(dict.fromkeys(owned))}
    owners = np.fromiter(map(index.__getitem__, owned), np.int64, len(owned))
    return _Owned(rows, owners, list(index))


_read_columns = attrgetter(
    *("event_time", "transaction_id", "amount", "latitude", "longitude"),
    *("customer_id", "merchant_id", "device_id", "ip"),
)


def build_columns(messages: Sequence[StreamTransaction]) -> dict[str, np.ndarray]:
    """Turn messages into the columns that records are made of, in the same order.

    Args:
        messages: At least one.

    Returns:
        ``event_time``, ``transaction``, ``amount``, ``latitude`` and ``longitude`` (NaN where
        missing) and the codes ``customer``, ``merchant``, ``device`` and ``ip`` (0).
    """
    times, ids, amounts, latitudes, longitudes, *names = zip(
        *map(_read_columns, messages), strict=True
    )
    codes = [list(map(encode_entity, column)) for column in names]
    return {
        "event_time": np.array(times, np.int64),
        "transaction": np.array(list(map(encode_id, ids)), np.int64),
        "amount": np.array(amounts, np.float64),
        "latitude": np.array(latitudes, np.float64),  # None becomes NaN
        "longitude": np.array(longitudes, np.float64),
        **{
            name: np.array(column, np.int64)
            for name, column in zip(("customer", "merchant", "device", "ip"), codes, strict=True)
        },
    }


def build_events(columns: Mapping[str, np.ndarray], kind: EventState) -> np.ndarray:
    """Turn columns into the records of one kind of state, in the same order.

    ``features.fraud_state.make_events`` does the same from a frame; a test holds them equal.
    """
    events = np.zeros(columns["event_time"].size, kind.dtype)
    for name in kind.dtype.names or ():
        events[name] = columns[name]
    return events
