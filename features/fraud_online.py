"""The states of a request's entities become its features, as of the request's own time.

Because windows are derived when read, they never go stale; because the arithmetic is
``features.fraud_windows``' and ``features.fraud``'s, they equal what history gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from features.fraud import derive
from features.fraud_history import to_microseconds
from features.fraud_state import (
    CUSTOMER_EVENT,
    IP_EVENT,
    LABEL_DAY,
    MERCHANT_EVENT,
    SLACK,
    encode_ids,
    find_tiled,
    unpack,
    unpack_tiles,
)
from features.fraud_windows import (
    Grouped,
    aggregate_customer_devices,
    aggregate_customer_merchants,
    aggregate_customer_places,
    aggregate_customer_spend,
    aggregate_ip_customers,
    aggregate_label_days,
    aggregate_merchant_amounts,
)
from features.tiles import add_tiled_moments, count_tiled
from features.windows import DAY, HOUR, Floats, Integers, Moments, count_windows

REQUEST_CODES = {
    "merchant_id": "merchant_code",
    "device_id": "device_code",
    "ip": "ip_code",
    "merchant_category": "category_code",
}
"""Columns of ids, and the request columns that hold their codes."""


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
        if find_tiled(states["merchant_events"]).any():
            means |= _add_merchant_tiles(means, groups, states["merchant_events"])
            means = _blank_merged(means, states["merchant_events"], times)
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
        if find_tiled(states["ip_events"]).any():
            counts = _blank_merged(counts, states["ip_events"], times)
        columns |= _blank_unnamed(_blank_late(counts, groups), requests["ip_code"])
    return columns | derive(columns)


def _customer_columns(
    states: Sequence[bytes | None], times: Integers, requests: Mapping[str, np.ndarray]
) -> dict[str, Floats]:
    groups, events = _gather(states, CUSTOMER_EVENT, times)
    columns = aggregate_customer_spend(groups, events["amount"].copy())
    if find_tiled(states).any():
        columns |= _add_customer_tiles(columns, groups, states)
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
    if find_tiled(states).any():
        columns = _blank_merged(columns, states, times)
    return _blank_late(columns, groups)


def _add_customer_tiles(
    columns: Mapping[str, Floats], groups: Grouped, states: Sequence[bytes | None]
) -> dict[str, Floats]:
    """Add what customers' tiles hold to their counts and amounts."""
    tiles, times = [unpack_tiles(state) for state in states], groups.query_times
    changed = {}
    for name, length in {"1h": HOUR, "24h": DAY, "7d": 7 * DAY}.items():
        count = f"customer_tx_count_{name}"
        changed[count] = columns[count] + count_tiled(tiles, times, length=length)
    for days in (7, 30):
        names = [f"customer_amount_{moment}_{days}d" for moment in ("mean", "std", "max")]
        unknown = np.full(times.size, np.nan)
        moments = Moments(*(columns.get(name, unknown) for name in names))
        num = count_windows(groups.find_bounds(days * DAY))
        added = add_tiled_moments(num, moments, tiles, times, length=days * DAY)
        changed |= {name: v for name, v in zip(names, added, strict=True) if name in columns}
    return changed


def _add_merchant_tiles(
    columns: Mapping[str, Floats], groups: Grouped, states: Sequence[bytes | None]
) -> dict[str, Floats]:
    """Add what merchants' tiles hold to their mean amounts."""
    (name, mean), *_ = columns.items()
    tiles = [unpack_tiles(state) for state in states]
    unknown = np.full(mean.size, np.nan)
    moments = Moments(mean, unknown, unknown)
    num = count_windows(groups.find_bounds(30 * DAY))
    added = add_tiled_moments(num, moments, tiles, groups.query_times, length=30 * DAY)
    return {name: added.mean}


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
    return _blank(columns, codes == 0)


def _blank_late(columns: dict[str, Floats], groups: Grouped) -> dict[str, Floats]:
    """Make values unknown where the request is so late that its events may have been dropped."""
    newest = np.full(groups.query_times.size, np.iinfo(np.int64).min // 2)
    has_events = np.diff(groups.event_starts) > 0
    newest[has_events] = groups.event_times[groups.event_starts[1:][has_events] - 1]
    is_late = newest - SLACK > groups.query_times
    return _blank(columns, is_late)


def _blank_merged(
    columns: dict[str, Floats], states: Sequence[bytes | None], times: Integers
) -> dict[str, Floats]:
    """Make values unknown where the request is not later than events that a tile has merged."""
    tiles = [unpack_tiles(state) for state in states]
    frontiers = [int(part["event_time"][-1]) if part.size else None for part in tiles]
    is_merged = [
        frontier is not None and time <= frontier
        for frontier, time in zip(frontiers, times.tolist(), strict=True)
    ]
    return _blank(columns, np.array(is_merged, dtype=bool))


def _blank(columns: dict[str, Floats], is_unknown: np.ndarray) -> dict[str, Floats]:
    return {name: np.where(is_unknown, np.nan, values) for name, values in columns.items()}
