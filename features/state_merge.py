"""States and new events become new states: idempotent, in time order, bounded.

Each event takes its place at its ``event_time``; a transaction already in the state changes
nothing; what no window of a request can reach any more is dropped. So the same events in any order,
in any batches and any number of times, give the same state, as long as none is merged into tiles.

A state holds at most ``EventState.max_events`` events one by one. Beyond that the oldest become
hourly tiles, which keep counts and the moments of amounts; which merchants, devices, places and
customers they held is forgotten, so counts of different ones become lower bounds. An event not
later than the newest tile can no longer be told from one already merged: it is refused and counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from features.fraud_history import count_label_days
from features.fraud_state import (
    EVENT_STATES,
    LABEL_DAY,
    LABEL_STATES,
    SLACK,
    STATE_KEYS,
    EventState,
    make_events,
    pack,
    unpack,
    unpack_tiles,
)
from features.fraud_windows import RISK_WINDOW_DAYS
from features.tiles import append_tiles
from features.windows import DAY, Integers

ADDED, DUPLICATE, BEYOND_TILES = 0, 1, 2
"""What became of an event."""
_NEVER = np.iinfo(np.int64).min // 2


class Merged(NamedTuple):
    """New states, and what became of the events.

    Attributes:
        states: One per entity, in the order asked; ``None`` where there is no event at all.
        newest: Time of each entity's latest event, microseconds.
        outcomes: ``ADDED``, ``DUPLICATE`` or ``BEYOND_TILES`` per event, in the order given.
    """

    states: list[bytes | None]
    newest: Integers
    outcomes: Integers


def merge_states(
    states: Sequence[bytes | None], events: np.ndarray, owners: Integers, *, kind: EventState
) -> Merged:
    """Add events to the states of their entities.

    Args:
        states: The entities' states so far, ``None`` for one without.
        events: New records of ``kind.dtype``, in any order.
        owners: Index into ``states`` of each event's entity. Shape ``(events,)``.
        kind: Which record, how far back, how many.
    """
    tiles = [unpack_tiles(state) for state in states]
    frontiers = np.array([part["event_time"][-1] if part.size else _NEVER for part in tiles])
    held = [unpack(state, kind.dtype) for state in states]
    held_starts = _starts_of(np.array([part.size for part in held], dtype=np.int64))
    # Joining bytes: concatenating arrays of records looks at every field of every array.
    held_records = np.frombuffer(b"".join([part.tobytes() for part in held]), kind.dtype)
    order = np.lexsort((events["transaction"], events["event_time"], owners))
    counts = np.bincount(owners, minlength=len(states)).astype(np.int64)
    outcomes = _find_repeated(events["transaction"], owners)[order]
    merged, starts = _merge(
        _as_words(held_records),
        held_starts,
        _as_words(events[order]),
        _starts_of(counts),
        frontiers,
        kind.retention + SLACK,
        outcomes,
    )
    records = np.ascontiguousarray(merged).view(kind.dtype).reshape(-1)
    in_given_order = np.empty_like(outcomes)
    in_given_order[order] = outcomes
    new_states = [
        _pack_bounded(tiles[entity], records[start:end], kind)
        for entity, (start, end) in enumerate(itertools.pairwise(starts))
    ]
    newest = np.maximum(_last_times(records, starts), frontiers)
    return Merged(new_states, newest, in_given_order)


def _starts_of(counts: Integers) -> Integers:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))


def _as_words(records: np.ndarray) -> Integers:
    """Look at records as rows of 64-bit words: time, transaction, and what else there is."""
    width = records.dtype.itemsize // 8
    return np.ascontiguousarray(records).view(np.int64).reshape(-1, width)


def _last_times(records: np.ndarray, starts: Integers) -> Integers:
    times = np.append(records["event_time"], _NEVER)
    return np.where(starts[1:] > starts[:-1], times[starts[1:] - 1], _NEVER)


def _find_repeated(transactions: Integers, owners: Integers) -> Integers:
    """Mark events whose transaction stands earlier among the same entity's new ones."""
    order = np.lexsort((transactions, owners))
    repeated = np.zeros(order.size, np.int64)
    same = (np.diff(transactions[order]) == 0) & (np.diff(owners[order]) == 0)
    repeated[order[1:][same]] = DUPLICATE
    return repeated


@njit(cache=True, nogil=True)
def _merge(
    held: Integers,
    held_starts: Integers,
    new: Integers,
    new_starts: Integers,
    frontiers: Integers,
    reach: int,
    outcomes: Integers,
) -> tuple[Integers, Integers]:
    """Merge two sorted lists per entity; write what became of each new event to ``outcomes``."""
    merged = np.empty((held.shape[0] + new.shape[0], held.shape[1]), np.int64)
    starts = np.zeros(held_starts.size, np.int64)
    size = 0
    for entity in range(held_starts.size - 1):
        h, h_end = held_starts[entity], held_starts[entity + 1]
        n, n_end = new_starts[entity], new_starts[entity + 1]
        newest = held[h_end - 1, 0] if h_end > h else _NEVER
        for i in range(n, n_end):
            if new[i, 0] <= frontiers[entity]:
                outcomes[i] = BEYOND_TILES
            for j in range(h, h_end):
                if held[j, 1] == new[i, 1]:
                    outcomes[i] = DUPLICATE
            if outcomes[i] == ADDED:
                newest = max(newest, new[i, 0])
        while h < h_end or n < n_end:
            take_new = h == h_end or (
                n < n_end
                and (new[n, 0] < held[h, 0] or (new[n, 0] == held[h, 0] and new[n, 1] < held[h, 1]))
            )
            row = new[n] if take_new else held[h]
            keep = row[0] >= newest - reach and not (take_new and outcomes[n] != ADDED)
            if take_new:
                n += 1
            else:
                h += 1
            if keep:
                merged[size] = row
                size += 1
        starts[entity + 1] = size
    return merged[:size], starts


def _pack_bounded(tiles: np.ndarray, events: np.ndarray, kind: EventState) -> bytes | None:
    """Serialise one entity's state, moving what is over the cap into tiles."""
    if not events.size and not tiles.size:
        return None
    if events.size > kind.max_events:
        cut = events.size - kind.max_events
        # Events of one instant stay together: the newest tile's time then tells old from new.
        cut = int(np.searchsorted(events["event_time"], events["event_time"][cut - 1], "right"))
        amounts = events["amount"] if "amount" in (kind.dtype.names or ()) else None
        tiles = append_tiles(
            tiles, events["event_time"][:cut], None if amounts is None else amounts[:cut]
        )
        events = events[cut:]
    if tiles.size:
        newest = events["event_time"][-1] if events.size else tiles["event_time"][-1]
        tiles = tiles[tiles["event_time"] >= newest - kind.retention - SLACK]
    return pack(events, tiles)


def build_event_states(transactions: pd.DataFrame, state: str) -> pd.DataFrame:
    """Build every entity's state from transactions.

    Args:
        transactions: All events up to the instant the states are for, each once.
        state: One of ``EVENT_STATES``.

    Returns:
        The key column, the state and its latest event's ``event_time_us``, one row per entity; each
        keeps what its own latest event says.
    """
    kind = EVENT_STATES[state]
    kept = transactions[transactions[kind.key].notna()]
    owners, entities = pd.factorize(kept[kind.key])
    merged = merge_states(
        [None] * len(entities), make_events(kept, state), owners.astype(np.int64), kind=kind
    )
    return pd.DataFrame({kind.key: entities, state: merged.states, "event_time_us": merged.newest})


def build_label_states(
    transactions: pd.DataFrame, labels: pd.DataFrame, state: str
) -> pd.DataFrame:
    """Build every entity's daily label counts; a second build from the same labels is the same.

    Returns:
        The key column, the state and its latest day's ``event_time_us``, one row per entity.
    """
    key = LABEL_STATES[state]
    days = count_label_days(transactions, labels, key)
    latest = days.groupby(key)["day_time_us"].transform("max")
    days = days[days["day_time_us"] >= latest - (RISK_WINDOW_DAYS + 1) * DAY]
    records = np.zeros(len(days), LABEL_DAY)
    records["event_time"] = days["day_time_us"]
    records["num_labels"], records["num_frauds"] = days["num_labels"], days["num_frauds"]
    rows = days.groupby(key, sort=False).indices
    return pd.DataFrame(
        {
            key: list(rows),
            state: [pack(records[row]) for row in rows.values()],
            "event_time_us": [int(records["event_time"][row].max()) for row in rows.values()],
        }
    )


def build_states(transactions: pd.DataFrame, labels: pd.DataFrame, state: str) -> pd.DataFrame:
    """Build every entity's state of any kind; see the two functions for the two kinds."""
    if state in EVENT_STATES:
        return build_event_states(transactions, state)
    return build_label_states(transactions, labels, state)


def list_states(transactions: pd.DataFrame) -> list[str]:
    """List the states whose entities the transactions name."""
    return [state for state, key in STATE_KEYS.items() if key in transactions]
