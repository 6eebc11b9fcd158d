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
    MAGIC,
    SLACK,
    STATE_KEYS,
    EventState,
    count_tiles,
    make_events,
    pack,
    unpack,
    unpack_tiles,
    unreadable,
)
from features.fraud_windows import RISK_WINDOW_DAYS
from features.tiles import TILE, append_tiles
from features.windows import DAY, Integers

ADDED, DUPLICATE, BEYOND_TILES = 0, 1, 2
"""What became of an event."""
_NEVER = np.iinfo(np.int64).min // 2
_MAGIC = int.from_bytes(MAGIC, "little", signed=True)
_HEADER_WORDS = len(pack(b"")) // 8
_TILE_WORDS = TILE.itemsize // 8


class Merged(NamedTuple):
    """New states, and what became of the events.

    Attributes:
        states: One per entity, in the order asked; ``None`` where there is no event at all.
        newest: Time of each entity's latest event, microseconds.
        have_tiles: Which states hold tiles. Shape ``(entities,)``.
        outcomes: ``ADDED``, ``DUPLICATE`` or ``BEYOND_TILES`` per event, in the order given.
    """

    states: list[bytes | None]
    newest: Integers
    have_tiles: np.ndarray
    outcomes: Integers


def merge_states(
    states: Sequence[bytes | None], events: np.ndarray, owners: Integers, *, kind: EventState
) -> Merged:
    """Add events to the states of their entities.

    All states are merged in one compiled pass from one array of words to another: a view of its
    records for each state cost more than the merging.

    Args:
        states: The entities' states so far, ``None`` for one without.
        events: New records of ``kind.dtype``, in any order.
        owners: Index into ``states`` of each event's entity. Shape ``(events,)``.
        kind: Which record, how far back, how many.

    Raises:
        ValueError: If the bytes are not a state.
    """
    held, ends = _join_words(states)
    order = np.lexsort((events["transaction"], events["event_time"], owners))
    counts = np.bincount(owners, minlength=len(states)).astype(np.int64)
    outcomes = _find_repeated(events["transaction"], owners)[order]
    width = kind.dtype.itemsize // 8
    merged = np.empty(held.size + events.size * width + _HEADER_WORDS * (len(states) + 1), np.int64)
    merged_ends, newest = np.empty(len(states), np.int64), np.empty(len(states), np.int64)
    are_states = _merge(
        held,
        ends,
        _as_words(events[order]),
        np.cumsum(counts),
        kind.retention + SLACK,
        outcomes,
        merged,
        merged_ends,
        newest,
    )
    if not are_states:
        raise unreadable()
    in_given_order = np.empty_like(outcomes)
    in_given_order[order] = outcomes
    new_states = _cut(merged, merged_ends)
    starts = np.concatenate((np.zeros(1, np.int64), merged_ends[:-1]))
    have_tiles = (merged_ends > starts) & (merged[starts + 1] > 0)
    most_words = _HEADER_WORDS + kind.max_events * width
    for entity in np.flatnonzero(merged_ends - starts > most_words):
        new_states[entity] = _bound(new_states[entity], kind)
        have_tiles[entity] = count_tiles(new_states[entity] or b"") > 0
    return Merged(new_states, newest, have_tiles, in_given_order)


def _join_words(states: Sequence[bytes | None]) -> tuple[Integers, Integers]:
    """Lay states out one after the other as words; return them, and where each one ends."""
    sizes = np.fromiter((0 if state is None else len(state) for state in states), np.int64)
    if (sizes % 8).any() or b"" in states:
        raise unreadable()
    words = np.frombuffer(b"".join([state for state in states if state is not None]), np.int64)
    return words, np.cumsum(sizes // 8)


def _cut(words: Integers, ends: Integers) -> list[bytes | None]:
    """Cut words into bytes, ``None`` where there are none."""
    data = memoryview(words.view(np.uint8).data)
    borders = itertools.pairwise([0, *(8 * ends).tolist()])
    return [data[start:end].tobytes() if end > start else None for start, end in borders]


def _as_words(records: np.ndarray) -> Integers:
    """Look at records as rows of 64-bit words: time, transaction, and what else there is."""
    width = records.dtype.itemsize // 8
    return np.ascontiguousarray(records).view(np.int64).reshape(-1, width)


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
    held_ends: Integers,
    new: Integers,
    new_ends: Integers,
    reach: int,
    outcomes: Integers,
    merged: Integers,
    merged_ends: Integers,
    newest: Integers,
) -> bool:
    """Merge each entity's state and new events, both in order, into its new state.

    Args:
        held: Words of the states so far.
        held_ends: Where each entity's end in them. Shape ``(entities,)``; so are the other ends.
        new: Rows of words.
        new_ends: Where each entity's end in them.
        reach: What lies so far before an entity's latest event is dropped, microseconds.
        outcomes: Of the new events; what became of them is written to it.
        merged: Filled with the words of the new states.
        merged_ends: Filled with where each entity's end in them.
        newest: Filled with the time of each entity's latest event.

    Returns:
        False if the words of one are not a state.
    """
    width = new.shape[1]
    size = begin = n = 0
    for entity in range(held_ends.size):
        end, n_end = held_ends[entity], new_ends[entity]
        h = begin
        if end > begin:
            h = _find_events(held, begin, end, width)
            if h < 0:
                return False
        has_tiles = h > begin + _HEADER_WORDS
        frontier = held[h - _TILE_WORDS] if has_tiles else _NEVER
        latest = _judge(held[h:end], new[n:n_end], frontier, outcomes[n:n_end])
        newest[entity] = max(latest, frontier)
        header = size
        size += _HEADER_WORDS
        tiles = held[begin + _HEADER_WORDS : h] if has_tiles else held[:0]
        num_tiles = _copy_tiles(tiles, newest[entity] - reach, merged[size:])
        size += num_tiles * _TILE_WORDS
        merged[header], merged[header + 1] = _MAGIC, num_tiles
        while h < end or n < n_end:
            take_new = h == end or (
                n < n_end
                and (new[n, 0] < held[h] or (new[n, 0] == held[h] and new[n, 1] < held[h + 1]))
            )
            if take_new:
                if outcomes[n] == ADDED and new[n, 0] >= latest - reach:
                    merged[size : size + width] = new[n]
                    size += width
                n += 1
            else:
                if held[h] >= latest - reach:
                    merged[size : size + width] = held[h : h + width]
                    size += width
                h += width
        if size == header + _HEADER_WORDS and not has_tiles:
            size = header
        merged_ends[entity] = size
        begin = end
    return True


@njit(nogil=True)
def _judge(held: Integers, new: Integers, frontier: int, outcomes: Integers) -> int:
    """Write what becomes of an entity's new events; return the time of its latest one."""
    width = new.shape[1]
    latest = held[held.size - width] if held.size else _NEVER
    for i in range(outcomes.size):
        if new[i, 0] <= frontier:
            outcomes[i] = BEYOND_TILES
        for j in range(0, held.size, width):
            if held[j + 1] == new[i, 1]:
                outcomes[i] = DUPLICATE
        if outcomes[i] == ADDED:
            latest = max(latest, new[i, 0])
    return latest


@njit(nogil=True)
def _find_events(held: Integers, begin: int, end: int, width: int) -> int:
    """Find where a state's events begin, after its tiles; -1 if the words are not a state."""
    rest = end - begin - _HEADER_WORDS
    if rest < 0 or held[begin] != _MAGIC:
        return -1
    num_tiles = held[begin + 1]
    if num_tiles < 0 or num_tiles > rest // _TILE_WORDS:  # divided: a product could overflow
        return -1
    if (rest - num_tiles * _TILE_WORDS) % width:
        return -1
    first: int = begin + _HEADER_WORDS + num_tiles * _TILE_WORDS
    return first


@njit(nogil=True)
def _copy_tiles(tiles: Integers, oldest: int, target: Integers) -> int:
    """Copy the tiles that are not older; return how many."""
    num = 0
    for tile in range(0, tiles.size, _TILE_WORDS):
        if tiles[tile] >= oldest:
            target[num * _TILE_WORDS : (num + 1) * _TILE_WORDS] = tiles[tile : tile + _TILE_WORDS]
            num += 1
    return num


def _bound(state: bytes | None, kind: EventState) -> bytes | None:
    """Move the events that are over the cap into tiles."""
    tiles, events = unpack_tiles(state), unpack(state, kind.dtype)
    if events.size <= kind.max_events:
        return state
    cut = events.size - kind.max_events
    # Events of one instant stay together: the newest tile's time then tells old from new.
    cut = int(np.searchsorted(events["event_time"], events["event_time"][cut - 1], "right"))
    amounts = events["amount"] if "amount" in (kind.dtype.names or ()) else None
    tiles = append_tiles(
        tiles, events["event_time"][:cut], None if amounts is None else amounts[:cut]
    )
    events = events[cut:]
    newest = events["event_time"][-1] if events.size else tiles["event_time"][-1]
    return pack(events, tiles[tiles["event_time"] >= newest - kind.retention - SLACK])


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
