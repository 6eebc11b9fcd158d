"""Events too many to keep one by one become tiles: an hour's events, merged.

A tile keeps how many events it holds, the moments of their amounts and the time of the latest; it
counts in a window as long as that latest event does. So an aggregate over tiles reaches back at
most an hour too far. A request not later than a tile's latest event cannot be answered from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from features.windows import HOUR, Floats, Integers, Moments

TILE = np.dtype(
    [("event_time", "<i8"), ("num", "<i8"), ("mean", "<f8"), ("m2", "<f8"), ("max", "<f8")]
)
"""Time of the latest event, their count, the amounts' mean, squared deviations and maximum."""


def append_tiles(tiles: np.ndarray, times: Integers, amounts: Floats | None) -> np.ndarray:
    """Merge events, all later than the tiles, into tiles of an hour each.

    Args:
        tiles: Records of ``TILE``, in time order.
        times: Microseconds, ascending. Shape ``(events,)``.
        amounts: Account currency, or ``None`` where the events have none. Shape ``(events,)``.

    Returns:
        All tiles, in time order.
    """
    singles = np.zeros(times.size, TILE)
    singles["event_time"], singles["num"] = times, 1
    if amounts is not None:
        singles["mean"] = singles["max"] = amounts
    parts = np.concatenate((tiles, singles))
    _, first = np.unique(parts["event_time"] // HOUR, return_index=True)
    merged = np.zeros(first.size, TILE)
    merged["event_time"] = np.maximum.reduceat(parts["event_time"], first)
    merged["num"] = np.add.reduceat(parts["num"], first)
    merged["max"] = np.maximum.reduceat(parts["max"], first)
    merged["mean"] = np.add.reduceat(parts["num"] * parts["mean"], first) / merged["num"]
    mean = np.repeat(merged["mean"], np.diff(np.append(first, parts.size)))
    deviations = parts["m2"] + parts["num"] * (parts["mean"] - mean) ** 2
    merged["m2"] = np.add.reduceat(deviations, first)
    return merged


def count_tiled(tiles: Sequence[np.ndarray], times: Integers, *, length: int) -> Floats:
    """Count the events that tiles hold for each query's window.

    Args:
        tiles: Of each query's entity, records of ``TILE``.
        times: Of the queries, microseconds. Shape ``(queries,)``.
        length: Length of the window, microseconds.
    """
    num: Floats = _sum_tiles(*_lay_out(tiles), times, length)[0]
    return num


def add_tiled_moments(
    num: Floats, moments: Moments, tiles: Sequence[np.ndarray], times: Integers, *, length: int
) -> Moments:
    """Put the amounts that tiles hold for each query's window beside those of its events.

    Args:
        num: How many events each window covers one by one. Shape ``(queries,)``.
        moments: Of those events; NaN where there are none.
        tiles: Of each query's entity, records of ``TILE``.
        times: Of the queries, microseconds. Shape ``(queries,)``.
        length: Length of the window, microseconds.

    Source:
        Moments of two samples together: Chan, Golub and LeVeque, 1979, as in ``features.windows``.
    """
    tiled_num, tiled_mean, tiled_m2, tiled_max = _sum_tiles(*_lay_out(tiles), times, length)
    total = num + tiled_num
    known = np.maximum(total, 1)
    mean = np.nan_to_num(moments.mean)
    delta = tiled_mean - mean
    m2 = np.nan_to_num(moments.std) ** 2 * num + tiled_m2 + delta**2 * num * tiled_num / known
    empty = total == 0
    return Moments(
        np.where(empty, np.nan, mean + delta * tiled_num / known),
        np.where(empty, np.nan, np.sqrt(m2 / known)),
        np.fmax(moments.max, tiled_max),
    )


def _lay_out(tiles: Sequence[np.ndarray]) -> tuple[np.ndarray, Integers]:
    """Put the queries' tiles one after the other, with the borders between them."""
    sizes = [part.size for part in tiles]
    return np.concatenate(tiles), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


@njit(cache=True, nogil=True)
def _sum_tiles(
    tiles: np.ndarray, starts: Integers, times: Integers, length: int
) -> tuple[Floats, Floats, Floats, Floats]:
    num, mean, m2 = np.zeros(times.size), np.zeros(times.size), np.zeros(times.size)
    maximum = np.full(times.size, np.nan)
    for query in range(times.size):
        for tile in tiles[starts[query] : starts[query + 1]]:
            if times[query] - length <= tile.event_time < times[query]:
                total = num[query] + tile.num
                delta = tile.mean - mean[query]
                mean[query] += delta * tile.num / total
                m2[query] += tile.m2 + delta * delta * num[query] * tile.num / total
                maximum[query] = np.fmax(maximum[query], tile.max)
                num[query] = total
    return num, mean, m2, maximum
