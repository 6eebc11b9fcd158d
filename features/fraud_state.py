"""An entity's recent events become one value in the online store: its state.

The online store holds, per entity, the events its longest window can reach, packed in a fixed
layout; ``features.fraud_online`` derives window values from it when it is read, and
``features.state_merge`` adds events to it.

Layout of a state, little-endian: 8 bytes of ``MAGIC``, the number of tiles (int64), the tiles,
then records of the entity's dtype below, ordered by ``event_time`` and ``transaction``. Every field
is 8 bytes wide. Ids are stored as 64-bit codes (``encode_id``), 0 for missing; a transaction's code
makes an update idempotent: the same event twice changes nothing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from features.fraud_history import to_microseconds
from features.fraud_windows import RETENTION
from features.tiles import TILE
from features.windows import DAY, Integers

MAGIC = b"TLSTATE2"
_HEADER = struct.Struct("<8sq")
SLACK = DAY
"""Events are kept this much longer than the longest window, for requests that come late."""

CUSTOMER_EVENT = np.dtype(
    [
        ("event_time", "<i8"),
        ("transaction", "<i8"),
        ("amount", "<f8"),
        ("merchant", "<i8"),
        ("device", "<i8"),
        ("latitude", "<f8"),
        ("longitude", "<f8"),
    ]
)
MERCHANT_EVENT = np.dtype([("event_time", "<i8"), ("transaction", "<i8"), ("amount", "<f8")])
IP_EVENT = np.dtype([("event_time", "<i8"), ("transaction", "<i8"), ("customer", "<i8")])
LABEL_DAY = np.dtype([("event_time", "<i8"), ("num_labels", "<i8"), ("num_frauds", "<i8")])


class EventState(NamedTuple):
    """What one kind of state that transactions update is about.

    Attributes:
        key: The transaction's column that names the entity.
        dtype: The record of one event.
        retention: The longest window, microseconds.
        max_events: How many events are kept one by one; older ones become hourly tiles.
    """

    key: str
    dtype: np.dtype
    retention: int
    max_events: int


EVENT_STATES = {
    "customer_events": EventState("customer_id", CUSTOMER_EVENT, RETENTION["customer"], 4096),
    "merchant_events": EventState("merchant_id", MERCHANT_EVENT, RETENTION["merchant"], 32768),
    "ip_events": EventState("ip", IP_EVENT, RETENTION["ip"], 16384),
}
"""States that transactions update, by name; the name is also the Feast field."""
LABEL_STATES = {"merchant_labels": "merchant_id", "category_labels": "merchant_category"}
"""Key column of the states that labels update."""
STATE_KEYS = {name: kind.key for name, kind in EVENT_STATES.items()} | LABEL_STATES
"""Key column of every state; a state's Feast view is called ``<state>_state``."""

_SOURCES = {
    "merchant": "merchant_id",
    "device": "device_id",
    "customer": "customer_id",
    "transaction": "transaction_id",
}


def encode_id(name: str | None) -> int:
    """Return an id's 64-bit code: a hash that every process and version agrees on; 0 if missing.

    Two of a million ids collide with a probability of 3e-8.

    >>> encode_id(None), encode_id("c1") == encode_id("c1"), encode_id("c1") == encode_id("c2")
    (0, True, False)
    """
    if name is None or name == "":
        return 0
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


encode_entity = lru_cache(maxsize=1 << 17)(encode_id)
"""``encode_id`` for ids that come again: customers, merchants, devices, addresses."""


def encode_ids(names: pd.Series) -> Integers:
    """Encode a column of ids; missing ones become 0."""
    codes, unique = pd.factorize(names)
    encoded = np.array([*(encode_id(name) for name in unique), 0], dtype=np.int64)
    return encoded[codes]


def make_events(transactions: pd.DataFrame, state: str) -> np.ndarray:
    """Turn transactions into the records of one kind of state, in the same order.

    Args:
        transactions: In the contract's columns; a missing optional column becomes 0 or NaN.
        state: One of ``EVENT_STATES``.
    """
    events = np.zeros(len(transactions), EVENT_STATES[state].dtype)
    for field in events.dtype.names or ():
        column = _SOURCES.get(field, field)
        if field == "event_time":
            events[field] = to_microseconds(transactions["event_time"])
        elif column not in transactions:
            events[field] = np.nan if events[field].dtype.kind == "f" else 0
        elif field in _SOURCES:
            events[field] = encode_ids(transactions[column])
        else:
            events[field] = transactions[column].to_numpy(np.float64)
    return events


def pack(events: np.ndarray | bytes, tiles: np.ndarray | None = None) -> bytes:
    """Serialise events, and the tiles before them, into a state."""
    num_tiles = 0 if tiles is None else tiles.size
    older = b"" if tiles is None else tiles.tobytes()
    newer = events if isinstance(events, bytes) else events.tobytes()
    return b"".join((_HEADER.pack(MAGIC, num_tiles), older, newer))


def unpack(state: bytes | None, dtype: np.dtype) -> np.ndarray:
    """Read a state's events.

    Raises:
        ValueError: If the bytes are not a state of this layout.
    """
    if state is None:
        return np.empty(0, dtype)
    return np.frombuffer(state, dtype, offset=find_records(state, dtype))


def find_records(state: bytes, dtype: np.dtype) -> int:
    """Find the byte at which a state's records begin, after its tiles.

    Raises:
        ValueError: If the bytes are not a state of this layout.

    >>> find_records(pack(b""), IP_EVENT)
    16
    """
    start: int = _HEADER.size + count_tiles(state) * TILE.itemsize
    if (len(state) - start) % dtype.itemsize:
        raise unreadable()
    return start


def unpack_tiles(state: bytes | None) -> np.ndarray:
    """Read a state's tiles, oldest first."""
    num_tiles = 0 if state is None else count_tiles(state)
    return np.frombuffer(state or b"", TILE, num_tiles, _HEADER.size if num_tiles else 0)


def count_tiles(state: bytes) -> int:
    """Count a state's tiles; 0 where every event is kept by itself.

    Raises:
        ValueError: If the bytes are not a state of this layout.

    >>> count_tiles(pack(np.empty(0, IP_EVENT)))
    0
    """
    if len(state) < _HEADER.size or state[:8] != MAGIC:
        raise unreadable()
    num_tiles: int = _HEADER.unpack_from(state)[1]
    if not 0 <= num_tiles * TILE.itemsize <= len(state) - _HEADER.size:
        raise unreadable()
    return num_tiles


def find_tiled(states: Sequence[bytes | None]) -> np.ndarray:
    """Say of each state whether a part of its history is held in tiles, at a lower resolution."""
    return np.array([state is not None and count_tiles(state) > 0 for state in states], dtype=bool)


def unreadable() -> ValueError:
    """Make the error for bytes that are no state."""
    return ValueError(
        "the online store holds a state this version cannot read;"
        " run `throughline fraud features` to rebuild it"
    )
