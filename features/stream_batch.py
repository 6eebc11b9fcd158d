"""A batch of accepted transactions becomes new states of one partition's entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from features.fraud_state import EVENT_STATES, EventState, count_tiles, encode_entity, encode_id
from features.state_merge import ADDED, BEYOND_TILES, DUPLICATE, merge_states
from features.state_store import StateStore, Update
from features.stream_log import find_partition
from features.stream_messages import StreamTransaction


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
    owned = {
        name: own
        for name, kind in EVENT_STATES.items()
        if (own := _select_entities(messages, kind.key, partition, num_partitions)).entities
    }
    entities = {EVENT_STATES[name].key: own.entities for name, own in owned.items()}
    held = states.read(entities, list(owned))
    updates = []
    for name, own in owned.items():
        kind = EVENT_STATES[name]
        events = build_events(own.messages, kind)
        merged = merge_states(held[name], events, own.owners, kind=kind)
        counts.beyond_tiles += int((merged.outcomes == BEYOND_TILES).sum())
        if kind.key == "customer_id":  # whose partition a transaction counts in
            counts.accepted += int((merged.outcomes == ADDED).sum())
            counts.duplicates += int((merged.outcomes == DUPLICATE).sum())
        for entity, before, after, newest in zip(
            own.entities, held[name], merged.states, merged.newest.tolist(), strict=True
        ):
            if after is not None and after != before:
                counts.tiled_states += count_tiles(after) > 0
                updates.append(Update(name, entity, after, newest))
    return updates


class _Owned(NamedTuple):
    """The messages that concern a partition's entities of one kind, and whose each is."""

    messages: list[StreamTransaction]
    owners: np.ndarray
    entities: list[str]


def _select_entities(
    messages: Sequence[StreamTransaction], key: str, partition: int, num_partitions: int
) -> _Owned:
    index: dict[str, int] = {}
    kept, owners = [], []
    for message in messages:
        entity = getattr(message, key)
        if entity is not None and find_partition(entity, num_partitions) == partition:
            kept.append(message)
            owners.append(index.setdefault(entity, len(index)))
    return _Owned(kept, np.array(owners, dtype=np.int64), list(index))


def build_events(messages: Sequence[StreamTransaction], kind: EventState) -> np.ndarray:
    """Turn messages into the records of one kind of state, in the same order.

    ``features.fraud_state.make_events`` does the same from a frame; a test holds them equal.
    """
    columns = {
        "event_time": [m.event_time for m in messages],
        "transaction": [encode_id(m.transaction_id) for m in messages],
        "amount": [m.amount for m in messages],
        "merchant": [encode_entity(m.merchant_id) for m in messages],
        "device": [encode_entity(m.device_id) for m in messages],
        "customer": [encode_entity(m.customer_id) for m in messages],
        "latitude": [np.nan if m.latitude is None else m.latitude for m in messages],
        "longitude": [np.nan if m.longitude is None else m.longitude for m in messages],
    }
    events = np.zeros(len(messages), kind.dtype)
    for name in kind.dtype.names or ():
        events[name] = columns[name]
    return events
