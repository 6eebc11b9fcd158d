"""An entity's recent events become one value in the online store: its state.

The online store holds, per entity, the events its longest window can reach, packed in a fixed
layout; ``features.fraud_online`` derives window values from it when it is read.

Layout of a state: 8 bytes of ``HEADER``, then records of the entity's dtype below, little-endian,
ordered by ``event_time`` and ``transaction``. Ids are stored as 64-bit codes (``encode_id``), 0 for
missing. A transaction's code makes an update idempotent: the same event twice changes nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from features.fraud_history import count_label_days, to_microseconds
from features.fraud_windows import RETENTION, RISK_WINDOW_DAYS
from features.windows import DAY, Integers

HEADER = b"TLSTATE1"
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

STATE_DTYPES = {
    "customer_events": CUSTOMER_EVENT,
    "merchant_events": MERCHANT_EVENT,
    "ip_events": IP_EVENT,
    "merchant_labels": LABEL_DAY,
    "category_labels": LABEL_DAY,
}
"""Record layout by state name; the name is also the Feast field."""
EVENT_STATES = {
    "customer_events": ("customer_id", RETENTION["customer"]),
    "merchant_events": ("merchant_id", RETENTION["merchant"]),
    "ip_events": ("ip", RETENTION["ip"]),
}
"""Key column and longest window, microseconds, of the states that transactions update."""
LABEL_STATES = {"merchant_labels": "merchant_id", "category_labels": "merchant_category"}
"""Key column of the states that labels update."""


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
    sources = {
        "merchant": "merchant_id",
        "device": "device_id",
        "customer": "customer_id",
        "transaction": "transaction_id",
    }
    events = np.zeros(len(transactions), STATE_DTYPES[state])
    for field in events.dtype.names or ():
        column = sources.get(field, field)
        if field == "event_time":
            events[field] = to_microseconds(transactions["event_time"])
        elif column not in transactions:
            events[field] = np.nan if events[field].dtype.kind == "f" else 0
        elif field in sources:
            events[field] = encode_ids(transactions[column])
        else:
            events[field] = transactions[column].to_numpy(np.float64)
    return events


def merge_events(state: bytes | None, events: np.ndarray, *, retention: int) -> bytes:
    """Add events to a state: each takes its place in time, a known transaction changes nothing.

    Args:
        state: The entity's state so far, or ``None``.
        events: New records of the same dtype, in any order.
        retention: How far back the longest window reaches, microseconds.

    Returns:
        The new state, without events older than ``retention + SLACK`` before the latest.
    """
    merged = np.concatenate((unpack(state, events.dtype), events))
    _, first = np.unique(merged["transaction"], return_index=True)
    merged = np.sort(merged[first], order=("event_time", "transaction"))
    oldest = merged["event_time"][-1] - retention - SLACK
    return pack(merged[np.searchsorted(merged["event_time"], oldest) :])


def pack(records: np.ndarray) -> bytes:
    """Serialise records into a state."""
    return HEADER + records.tobytes()


def unpack(state: bytes | None, dtype: np.dtype) -> np.ndarray:
    """Read a state's records.

    Raises:
        ValueError: If the bytes are not a state of this layout.
    """
    if state is None:
        return np.empty(0, dtype)
    if state[:8] != HEADER or (len(state) - 8) % dtype.itemsize:
        raise ValueError(
            "the online store holds a state this version cannot read;"
            " run `throughline fraud features` to rebuild it"
        )
    return np.frombuffer(state, dtype, offset=8)


def build_event_states(transactions: pd.DataFrame, state: str) -> pd.DataFrame:
    """Build every entity's state from transactions.

    Args:
        transactions: All events up to the instant the states are for.
        state: One of ``EVENT_STATES``.

    Returns:
        The key column and the state, one row per entity; each keeps what its own latest event says.
    """
    key, retention = EVENT_STATES[state]
    kept = transactions[transactions[key].notna()]
    events = make_events(kept, state)
    rows = kept.groupby(key, sort=False).indices
    return pd.DataFrame(
        {
            key: list(rows),
            state: [merge_events(None, events[row], retention=retention) for row in rows.values()],
        }
    )


def build_label_states(
    transactions: pd.DataFrame, labels: pd.DataFrame, state: str
) -> pd.DataFrame:
    """Build every entity's daily label counts; a second build from the same labels is the same."""
    key = LABEL_STATES[state]
    days = count_label_days(transactions, labels, key)
    latest = days.groupby(key)["day_time_us"].transform("max")
    days = days[days["day_time_us"] >= latest - (RISK_WINDOW_DAYS + 1) * DAY]
    records = np.zeros(len(days), LABEL_DAY)
    records["event_time"] = days["day_time_us"]
    records["num_labels"], records["num_frauds"] = days["num_labels"], days["num_frauds"]
    rows = days.groupby(key, sort=False).indices
    return pd.DataFrame({key: list(rows), state: [pack(records[row]) for row in rows.values()]})
