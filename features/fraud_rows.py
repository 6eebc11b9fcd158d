"""Stored states and requests become model inputs row by row, in one compiled pass.

The same definitions as ``features.fraud_online``, which goes column by column and serves as its
oracle: the sliding kernels of ``features.windows`` and the formulas of ``features.fraud``, compiled
into one function, because a request cannot pay for a hundred calls into NumPy.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import namedtuple
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
from numba import njit

from features import fraud, fraud_windows, state_summaries, windows
from features.fraud_selection import NEEDS
from features.fraud_state import CUSTOMER_EVENT, IP_EVENT, MAGIC, SLACK
from features.fraud_windows import to_unit_vectors
from features.state_summaries import read_fraud_rate, read_mean_amount
from features.tiles import TILE
from features.windows import (
    DAY,
    HOUR,
    SECOND,
    Bytes,
    Floats,
    Integers,
    count_matches,
    find_bounds_into,
    merge_moments,
    slide_moments_into,
)

COLUMNS = tuple(name for name in NEEDS if name != "card_type")
"""What ``compute_rows`` computes, in order; a world without some column leaves its features NaN."""
REQUEST_INTEGERS = ("event_time_us", "merchant_code", "device_code", "has_ip", "has_category")
REQUEST_FLOATS = ("amount", "latitude", "longitude")
_Row = cast("Any", namedtuple("_Row", COLUMNS))  # compiled code takes no typing.NamedTuple
_MAGIC = int.from_bytes(MAGIC, "little", signed=True)
_HEADER_WORDS = 2
_BYTES_TAG = 0x0A
_CUSTOMER_WORDS = CUSTOMER_EVENT.itemsize // 8
_IP_WORDS = IP_EVENT.itemsize // 8
_TILE_WORDS = TILE.itemsize // 8
_MONTH = 30 * DAY

TILED, UNREADABLE = 1, 2


class Kernel(Protocol):
    """What ``compile_kernel`` returns."""

    def __call__(
        self,
        messages: Bytes,
        ends: Integers,
        merchants: Integers,
        categories: Integers,
        places: Integers,
        integers: Integers,
        floats: Floats,
        features: Floats,
        marks: Integers,
        /,
    ) -> None:
        """Compute the features of requests, each as of its own time.

        Args:
            messages: What the store holds of customers and addresses, one after the other: states
                wrapped as ``features.feast_layout.encode_value`` does. Bytes.
            ends: Where each message ends, the rows' customers first, then their addresses; an
                unknown entity has none. Shape ``(2 * rows,)``.
            merchants: Summaries of merchants (``features.state_summaries``).
            categories: Summaries of the labels of merchant categories.
            places: Where the row's merchant and category begin in them, -1 if it names none.
                Shape ``(rows, 2)``.
            integers: ``REQUEST_INTEGERS``; a code is 0 where the request lacks it. ``(rows, 5)``.
            floats: ``REQUEST_FLOATS``; NaN where the request lacks it. ``(rows, 3)``.
            features: Filled with ``COLUMNS``. Shape ``(rows, 27)``.
            marks: Filled with 0, or ``TILED`` where a part of the history is held at a lower
                resolution, or ``UNREADABLE`` where bytes are no state: the row is not filled.
                Shape ``(rows,)``.
        """


@lru_cache(maxsize=1)
def compile_kernel() -> Kernel:
    """Compile the kernel, or load it from numba's cache: seconds the first time.

    Numba's cache looks at one file only. The sources of everything compiled in are part of the
    closure, and so of the cache's key: an edited formula is never answered by an old compilation.
    """
    digest = hashlib.sha256()
    for module in (fraud, fraud_windows, state_summaries, windows):
        digest.update(inspect.getsource(module).encode())
    sources = digest.hexdigest()

    @njit(cache=True, nogil=True)
    def compute_rows(
        messages: Bytes,
        ends: Integers,
        merchants: Integers,
        categories: Integers,
        places: Integers,
        integers: Integers,
        floats: Floats,
        features: Floats,
        marks: Integers,
    ) -> None:
        assert len(sources) > 0
        rows = marks.size
        for row in range(rows):
            customer = _unwrap(messages, ends, row)
            ip = _unwrap(messages, ends, rows + row)
            marks[row] = max(_check(customer), _check(ip))
            if marks[row] != UNREADABLE:
                values = _compute_row(
                    _split(customer, _CUSTOMER_WORDS),
                    _split(ip, _IP_WORDS),
                    merchants,
                    categories,
                    places[row],
                    integers[row],
                    floats[row],
                )
                for column, value in enumerate(values):
                    features[row, column] = value

    return cast("Kernel", compute_rows)


@njit(nogil=True)
def _unwrap(messages: Bytes, ends: Integers, entity: int) -> Integers:
    """Copy a message's state to words of its own; a single 0 where the message is not one state."""
    begin = ends[entity - 1] if entity else 0
    if begin == ends[entity]:
        return np.empty(0, np.int64)
    message = messages[begin : ends[entity]]
    size, shift, start = 0, 0, 1
    while start < min(message.size, 10):
        size |= int(message[start] & 0x7F) << shift
        shift += 7
        start += 1
        if message[start - 1] < 0x80:
            break
    if message[0] != _BYTES_TAG or message.size != start + size or size % 8:
        return np.zeros(1, np.int64)
    words = np.empty(size // 8, np.int64)
    words.view(np.uint8)[:] = message[start:]
    return words


@njit(nogil=True)
def _check(words: Integers) -> int:
    if words.size == 0:
        return 0
    if words.size < _HEADER_WORDS or words[0] != _MAGIC:
        return UNREADABLE
    if words[1] < 0 or words[1] * _TILE_WORDS > words.size - _HEADER_WORDS:
        return UNREADABLE
    return TILED if words[1] else 0


@njit(nogil=True)
def _split(words: Integers, size: int) -> tuple[Integers, Integers]:
    """Return a state's tiles ``(tiles, 5)`` and events ``(events, size)`` as words."""
    num_tiles = words[1] if words.size else 0
    middle = min(_HEADER_WORDS, words.size) + num_tiles * _TILE_WORDS
    num = (words.size - middle) // size
    tiles = words[middle - num_tiles * _TILE_WORDS : middle].reshape(num_tiles, _TILE_WORDS)
    return tiles, words[middle : middle + num * size].reshape(num, size)


@njit(nogil=True)
def _compute_row(customer, ip, merchants, categories, places, integers, floats):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    time, merchant, device, address, _ = integers
    amount, latitude, longitude = floats
    tiles, events = customer
    spend = _spend(tiles, events[:, 0], events[:, 2].copy().view(np.float64), time)
    hour, day, week, mean_7d, std_7d, mean_30d, std_30d, max_30d, since_previous = spend
    unique_24h, unique_7d, _, at_merchant = _matches(events[:, 0], events[:, 3], time, merchant)
    _, _, _, with_device = _matches(events[:, 0], events[:, 4], time, device)
    x, y, z = _usual_place(events, time)
    if _is_late(customer, time):
        hour = day = week = mean_7d = std_7d = mean_30d = std_30d = max_30d = np.nan
        since_previous = unique_24h = unique_7d = at_merchant = with_device = x = y = z = np.nan
    addresses = np.nan
    if address != 0 and not _is_late(ip, time):
        addresses, _, _, _ = _matches(ip[1][:, 0], ip[1][:, 2], time, 0)
    mean_paid = merchant_rate = category_rate = np.nan
    if places[0] >= 0:
        labels = places[0] + 1
        mean_paid = read_mean_amount(merchants, labels + merchants[places[0]], time)
        merchant_rate = read_fraud_rate(merchants, labels, time)
    if places[1] >= 0:
        category_rate = read_fraud_rate(categories, places[1], time)
    night = fraud.is_night(time)
    weekday = fraud.day_of_week(time)
    zscore_30d = fraud.customer_amount_zscore_30d(amount, mean_30d, std_30d)
    distance = fraud.ip_distance_km_from_usual(latitude, longitude, x, y, z)
    return _Row(
        amount_log=fraud.amount_log(amount),
        hour_sin=fraud.hour_sin(time),
        hour_cos=fraud.hour_cos(time),
        day_of_week=weekday,
        is_weekend=fraud.is_weekend(weekday),
        is_night=night,
        customer_tx_count_1h=hour,
        customer_tx_count_24h=day,
        customer_tx_count_7d=week,
        customer_amount_mean_7d=mean_7d,
        customer_amount_mean_30d=mean_30d,
        customer_amount_zscore_7d=fraud.customer_amount_zscore_7d(amount, mean_7d, std_7d),
        customer_amount_zscore_30d=zscore_30d,
        customer_amount_max_30d=max_30d,
        customer_unique_merchants_24h=unique_24h,
        customer_unique_merchants_7d=unique_7d,
        customer_seconds_since_previous=since_previous,
        merchant_fraud_rate=merchant_rate,
        merchant_category_risk=category_rate,
        merchant_amount_mean_30d=mean_paid,
        amount_to_merchant_mean=fraud.amount_to_merchant_mean(amount, mean_paid),
        ip_distance_km_from_usual=distance,
        ip_unique_customers_24h=addresses,
        is_known_device=fraud.is_known_device(with_device),
        amount_zscore_by_night=fraud.amount_zscore_by_night(zscore_30d, night),
        is_new_merchant_and_high_amount=fraud.is_new_merchant_and_high_amount(
            at_merchant, zscore_30d
        ),
        is_far_and_fast=fraud.is_far_and_fast(distance, since_previous),
    )


@njit(nogil=True)
def _spend(tiles: Integers, times: Integers, amounts: Floats, time: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return counts of 1 h, 24 h, 7 d; mean, std of 7 d; mean, std, max of 30 d; seconds since."""
    low, high = np.empty(2, np.int64), np.empty(2, np.int64)
    low[0], high[0] = _bounds(times, time, _MONTH)
    low[1], high[1] = _bounds(times, time, 7 * DAY)
    mean, std, maximum = np.empty(2), np.empty(2), np.empty(2)
    slide_moments_into(amounts, low, high, mean, std, maximum)
    hour, day = _bounds(times, time, HOUR), _bounds(times, time, DAY)
    since_previous = np.nan
    if high[0] > low[0]:
        since_previous = (time - times[high[0] - 1]) / SECOND
    in_hour, in_day = float(hour[1] - hour[0]), float(day[1] - day[0])
    in_week, in_month = float(high[1] - low[1]), float(high[0] - low[0])
    if tiles.size:
        in_hour += _sum_tiles(tiles, time, HOUR)[0]
        in_day += _sum_tiles(tiles, time, DAY)[0]
        in_week = _add_tiles(tiles, time, 7 * DAY, in_week, mean, std, maximum, 1)
        _add_tiles(tiles, time, _MONTH, in_month, mean, std, maximum, 0)
    return (
        in_hour, in_day, in_week, mean[1], std[1], mean[0], std[0], maximum[0], since_previous,
    )  # fmt: skip


@njit(nogil=True)
def _add_tiles(
    tiles: Integers, time: int, length: int, num: float, mean: Floats, std: Floats, maximum: Floats,
    at: int,
) -> float:  # fmt: skip
    """Put what tiles hold beside moments of ``num`` events; return how many there are together."""
    tiled, tiled_mean, tiled_m2, tiled_max = _sum_tiles(tiles, time, length)
    if tiled == 0:
        return num
    if num == 0:
        mean[at], std[at], maximum[at] = tiled_mean, np.sqrt(tiled_m2 / tiled), tiled_max
        return tiled
    mean[at], m2 = merge_moments(num, mean[at], std[at] ** 2 * num, tiled, tiled_mean, tiled_m2)
    std[at] = np.sqrt(m2 / (num + tiled))
    maximum[at] = max(maximum[at], tiled_max)
    return num + tiled


@njit(nogil=True)
def _sum_tiles(tiles: Integers, time: int, length: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return count, mean, squared deviations and maximum of the tiles a window covers."""
    num, mean, m2, maximum = 0.0, 0.0, 0.0, -np.inf
    moments = tiles.view(np.float64)
    for tile in range(len(tiles)):
        if time - length <= tiles[tile, 0] < time:
            tiled = float(tiles[tile, 1])
            mean, m2 = merge_moments(num, mean, m2, tiled, moments[tile, 2], moments[tile, 3])
            maximum = max(maximum, moments[tile, 4])
            num += tiled
    return num, mean, m2, maximum


@njit(nogil=True)
def _bounds(times: Integers, time: int, length: int) -> tuple[int, int]:
    low, high = np.empty(1, np.int64), np.empty(1, np.int64)
    one_group, one_query = np.array([0, times.size]), np.array([0, 1])
    find_bounds_into(times, one_group, np.array([time]), one_query, length, low, high)
    return low[0], high[0]


@njit(nogil=True)
def _matches(times: Integers, codes: Integers, time: int, asked: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Return different codes in 24 h, 7 d, 30 d and how often ``asked`` stands in the 30 d.

    An event's code 0 says that it has none, and it is left out; asking for 0 gives NaN.
    """
    kept_times, kept = np.empty(times.size, np.int64), np.empty(times.size + 1, np.int64)
    num = 0
    for i in range(times.size):
        if codes[i] != 0:
            kept_times[num], kept[num] = times[i], codes[i]
            num += 1
    kept[num] = asked
    num_codes = _renumber(kept[: num + 1])
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for window, length in enumerate((_MONTH, 7 * DAY, DAY)):  # longest first: bounds never decrease
        low[window], high[window] = _bounds(kept_times[:num], time, length)
    asked_codes = np.full(3, kept[num] if asked != 0 else -1)
    distinct, matching = count_matches(kept[:num], low, high, asked_codes, num_codes)
    return distinct[2], distinct[1], distinct[0], matching[0]


@njit(nogil=True)
def _renumber(codes: Integers) -> int:
    """Replace codes by 0, 1, ... in order of appearance; return how many there are."""
    size = 4
    while size < 2 * codes.size:
        size *= 2
    slots, numbers = np.zeros(size, np.int64), np.full(size, -1)
    num_codes = 0
    for i in range(codes.size):
        slot = codes[i] & (size - 1)  # codes are hashes: their low bits are as good as any
        while numbers[slot] >= 0 and slots[slot] != codes[i]:
            slot = (slot + 1) & (size - 1)
        if numbers[slot] < 0:
            slots[slot], numbers[slot] = codes[i], num_codes
            num_codes += 1
        codes[i] = numbers[slot]
    return num_codes


@njit(nogil=True)
def _usual_place(events: Integers, time: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Average where the customer paid in the 30 days before, as a vector; NaN if unknown."""
    low, high = _bounds(events[:, 0], time, _MONTH)
    x, y, z = np.empty(high - low), np.empty(high - low), np.empty(high - low)
    num = 0
    for event in events[low:high].copy().view(np.float64):
        if not (np.isnan(event[5]) or np.isnan(event[6])):
            x[num], y[num], z[num] = to_unit_vectors(event[5], event[6])
            num += 1
    return _mean(x[:num]), _mean(y[:num]), _mean(z[:num])


@njit(nogil=True)
def _mean(values: Floats) -> float:
    mean, std, maximum = np.empty(1), np.empty(1), np.empty(1)
    slide_moments_into(values, np.array([0]), np.array([values.size]), mean, std, maximum)
    return mean[0]


@njit(nogil=True)
def _is_late(state: tuple[Integers, Integers], time: int) -> bool:
    """Whether events the request needs may have been dropped, or were merged into a tile."""
    tiles, events = state
    if len(tiles) and time <= tiles[-1, 0]:
        return True
    return len(events) > 0 and events[-1, 0] - SLACK > time
