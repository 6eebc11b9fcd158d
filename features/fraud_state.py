"""An entity's recent events become one value in the online store, and window values at read time.

The online store holds, per entity, the events its longest window can reach, packed in a fixed
layout. Because windows are derived when read, they are as of the request's time and never go stale;
because the arithmetic is ``features.fraud``'s, they equal the history's.

Layout of a state: 8 bytes of ``HEADER``, then records of the entity's dtype below, little-endian,
ordered by ``event_time`` and ``transaction``. Ids are stored as 64-bit codes (``encode_id``), 0 for
missing. A transaction's code makes an update idempotent: the same event twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from features.fraud import derive
from features.fraud_history import count_label_days, to_microseconds
from features.fraud_windows import (
    RETENTION,
    RISK_WINDOW_DAYS,
    Grouped,
    aggregate_customer_devices,
    aggregate_customer_merchants,
    aggregate_customer_places,
    aggregate_customer_spend,
    aggregate_ip_customers,
    aggregate_label_days,
    aggregate_merchant_amounts,
)
from features.windows import DAY, Floats, Integers

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
        The key column and the state, one row per entity seen within the retention.
    """
    key, retention = EVENT_STATES[state]
    times = transactions["event_time"]
    recent = times >= times.max() - pd.Timedelta(microseconds=retention + SLACK)
    kept = transactions[recent & transactions[key].notna()]
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
    oldest = days["day_time_us"].max() - (RISK_WINDOW_DAYS + 1) * DAY
    days = days[days["day_time_us"] >= oldest]
    records = np.zeros(len(days), LABEL_DAY)
    records["event_time"] = days["day_time_us"]
    records["num_labels"], records["num_frauds"] = days["num_labels"], days["num_frauds"]
    rows = days.groupby(key, sort=False).indices
    return pd.DataFrame({key: list(rows), state: [pack(records[row]) for row in rows.values()]})


def make_requests(transactions: pd.DataFrame) -> dict[str, np.ndarray]:
    """Turn transactions being scored into the request's own columns.

    Returns:
        ``amount, event_time_us`` and, where the transactions have them, ``latitude, longitude``
        and the codes ``{merchant,device,ip,category}_code`` (0 for missing).
    """
    requests: dict[str, np.ndarray] = {
        "amount": transactions["amount"].to_numpy(np.float64),
        "event_time_us": to_microseconds(transactions["event_time"]),
    }
    for column in ("latitude", "longitude"):
        if column in transactions:
            requests[column] = transactions[column].to_numpy(np.float64)
    for column, code in REQUEST_CODES.items():
        if column in transactions:
            requests[code] = encode_ids(transactions[column])
    return requests


REQUEST_CODES = {
    "merchant_id": "merchant_code",
    "device_id": "device_code",
    "ip": "ip_code",
    "merchant_category": "category_code",
}


def compute_online(
    states: Mapping[str, Sequence[bytes | None]], requests: Mapping[str, np.ndarray]
) -> dict[str, Floats]:
    """Compute the features of requests from the states of their entities.

    Args:
        states: For each kind of state at hand, one state per request (``None``: unknown entity).
        requests: Columns of ``make_requests``, each of shape ``(requests,)``.

    Returns:
        Window values and derived features, each of shape ``(requests,)``. A request more than
        ``SLACK`` older than its entity's latest event gets NaN: what it needs may be gone.
    """
    times = np.asarray(requests["event_time_us"])
    columns: dict[str, np.ndarray] = dict(requests)
    columns |= _customer_columns(states["customer_events"], times, requests)
    if "merchant_events" in states:
        groups, events = _gather(states["merchant_events"], MERCHANT_EVENT, times)
        means = aggregate_merchant_amounts(groups, events["amount"].copy())
        columns |= _blank_late(means, groups)
        columns["merchant_fraud_rate"] = _label_rate(
            states["merchant_labels"], times, requests["merchant_code"]
        )
    if "category_labels" in states:
        columns["merchant_category_risk"] = _label_rate(
            states["category_labels"], times, requests["category_code"]
        )
    if "ip_events" in states:
        groups, events = _gather(states["ip_events"], IP_EVENT, times)
        customers, num_codes = _recode(events["customer"])
        counts = aggregate_ip_customers(groups, customers, num_codes=num_codes)
        columns |= _blank_unnamed(_blank_late(counts, groups), requests["ip_code"])
    return columns | derive(columns)


def _customer_columns(
    states: Sequence[bytes | None], times: Integers, requests: Mapping[str, np.ndarray]
) -> dict[str, Floats]:
    groups, events = _gather(states, CUSTOMER_EVENT, times)
    columns = aggregate_customer_spend(groups, events["amount"].copy())
    if "merchant_code" in requests:
        groups_with, kept = _keep(groups, events, events["merchant"] != 0)
        codes, asked, unique = _recode_with(kept["merchant"], requests["merchant_code"])
        columns |= aggregate_customer_merchants(groups_with, codes, asked, num_codes=unique)
    if "device_code" in requests:
        groups_with, kept = _keep(groups, events, events["device"] != 0)
        codes, asked, unique = _recode_with(kept["device"], requests["device_code"])
        columns |= aggregate_customer_devices(groups_with, codes, asked, num_codes=unique)
    if "latitude" in requests and "longitude" in requests:
        has_place = ~(np.isnan(events["latitude"]) | np.isnan(events["longitude"]))
        groups_with, kept = _keep(groups, events, has_place)
        columns |= aggregate_customer_places(
            groups_with, kept["latitude"].copy(), kept["longitude"].copy()
        )
    return _blank_late(columns, groups)


def _gather(
    states: Sequence[bytes | None], dtype: np.dtype, times: Integers
) -> tuple[Grouped, np.ndarray]:
    """Lay the states' events out one request after the other, each request a group."""
    parts = [unpack(state, dtype) for state in states]
    starts = np.concatenate(([0], np.cumsum([part.size for part in parts]))).astype(np.int64)
    events = np.concatenate(parts) if parts else np.empty(0, dtype)
    groups = Grouped(
        events["event_time"].copy(), starts, times, np.arange(times.size + 1, dtype=np.int64)
    )
    return groups, events


def _keep(groups: Grouped, events: np.ndarray, mask: np.ndarray) -> tuple[Grouped, np.ndarray]:
    """Keep the events the mask marks, and move the group borders accordingly."""
    kept_before = np.concatenate(([0], np.cumsum(mask))).astype(np.int64)
    kept = Grouped(
        groups.event_times[mask],
        kept_before[groups.event_starts],
        groups.query_times,
        groups.query_starts,
    )
    return kept, events[mask]


def _recode(codes: Integers) -> tuple[Integers, int]:
    unique, dense = np.unique(codes, return_inverse=True)
    return dense.astype(np.int64), unique.size


def _recode_with(codes: Integers, asked: Integers) -> tuple[Integers, Integers, int]:
    """Renumber events' and requests' codes together, densely; a request's 0 becomes -1."""
    dense, unique = _recode(np.concatenate((codes, asked)))
    return dense[: codes.size], np.where(asked == 0, -1, dense[codes.size :]), unique


def _label_rate(states: Sequence[bytes | None], times: Integers, codes: Integers) -> Floats:
    groups, days = _gather(states, LABEL_DAY, times)
    rate = aggregate_label_days(groups, days["num_labels"].copy(), days["num_frauds"].copy())
    return _blank_unnamed(_blank_late({"rate": rate}, groups), codes)["rate"]


def _blank_unnamed(columns: dict[str, Floats], codes: Integers) -> dict[str, Floats]:
    """Make values unknown where the request names no entity."""
    return {name: np.where(codes == 0, np.nan, values) for name, values in columns.items()}


def _blank_late(columns: dict[str, Floats], groups: Grouped) -> dict[str, Floats]:
    """Make values unknown where the request is so late that its events may have been dropped."""
    newest = np.full(groups.query_times.size, np.iinfo(np.int64).min // 2)
    has_events = np.diff(groups.event_starts) > 0
    newest[has_events] = groups.event_times[groups.event_starts[1:][has_events] - 1]
    is_late = newest - SLACK > groups.query_times
    return {name: np.where(is_late, np.nan, values) for name, values in columns.items()}
