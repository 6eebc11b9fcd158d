"""Stored states and requests become model inputs row by row, in one compiled pass.

The same definitions as ``features.fraud_online``, which goes column by column and serves as its
oracle: the arithmetic of ``features.windows`` and the formulas of ``features.fraud``, compiled into
one function that allocates next to nothing. A request cannot pay for a hundred calls into NumPy,
and one window needs two searches where a history is slid over.
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
from features.windows import DAY, HOUR, SECOND, Bytes, Floats, Integers, merge_moments

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
_FIELDS = CUSTOMER_EVENT.names or ()
_AMOUNT, _MERCHANT, _DEVICE = (_FIELDS.index(name) for name in ("amount", "merchant", "device"))
_LATITUDE, _LONGITUDE = _FIELDS.index("latitude"), _FIELDS.index("longitude")
_CUSTOMER = (IP_EVENT.names or ()).index("customer")
_MONTH = 30 * DAY
MANY_EVENTS = 16
"""Up to so many codes are compared with each other; more are looked up in a table."""

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
            marks[row] = max(_check(customer, _CUSTOMER_WORDS), _check(ip, _IP_WORDS))
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
def _check(words: Integers, size: int) -> int:
    """Mark a state whose events have ``size`` words."""
    if words.size == 0:
        return 0
    if words.size < _HEADER_WORDS or words[0] != _MAGIC:
        return UNREADABLE
    rest = words.size - _HEADER_WORDS
    if words[1] < 0 or words[1] > rest // _TILE_WORDS:  # divided: a product could overflow
        return UNREADABLE
    if (rest - words[1] * _TILE_WORDS) % size:
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
    numbers = events.view(np.float64)
    month = _find_window(events, time, _MONTH)
    week = _find_window(events, time, 7 * DAY)
    day = _find_window(events, time, DAY)
    in_hour = _count(_find_window(events, time, HOUR)) + _sum_tiles(tiles, time, HOUR)[0]
    in_day = _count(day) + _sum_tiles(tiles, time, DAY)[0]
    in_week, mean_7d, std_7d, _ = _summarise(numbers, week, _sum_tiles(tiles, time, 7 * DAY))
    _, mean_30d, std_30d, max_30d = _summarise(numbers, month, _sum_tiles(tiles, time, _MONTH))
    since_previous = np.nan
    if month[1] > month[0]:
        since_previous = (time - events[month[1] - 1, 0]) / SECOND
    unique_24h = _count_distinct(events, day, _MERCHANT)
    unique_7d = _count_distinct(events, week, _MERCHANT)
    at_merchant = _count_equal(events, month, _MERCHANT, merchant)
    with_device = _count_equal(events, month, _DEVICE, device)
    x, y, z = _find_usual_place(numbers, month)
    if _is_late(customer, time):
        in_hour = in_day = in_week = mean_7d = std_7d = mean_30d = std_30d = max_30d = np.nan
        since_previous = unique_24h = unique_7d = at_merchant = with_device = x = y = z = np.nan
    addresses = np.nan
    if address != 0 and not _is_late(ip, time):
        addresses = _count_distinct(ip[1], _find_window(ip[1], time, DAY), _CUSTOMER)
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
        customer_tx_count_1h=in_hour,
        customer_tx_count_24h=in_day,
        customer_tx_count_7d=in_week,
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
def _find_window(events: Integers, time: int, length: int) -> tuple[int, int]:
    """Return which events the window covers; ``features.windows.find_bounds`` of one query."""
    times = events[:, 0]
    return np.searchsorted(times, time - length), np.searchsorted(times, time)


@njit(nogil=True)
def _count(window: tuple[int, int]) -> float:
    return float(window[1] - window[0])


@njit(nogil=True)
def _summarise(numbers: Floats, window: tuple[int, int], tiled):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return count, mean, deviation and maximum of the amounts of events and tiles together."""
    num, mean, m2, maximum = tiled
    for event in range(window[0], window[1]):
        amount = numbers[event, _AMOUNT]
        mean, m2 = merge_moments(num, mean, m2, 1.0, amount, 0.0)
        maximum = max(maximum, amount)
        num += 1.0
    if num == 0:
        return num, np.nan, np.nan, np.nan
    return num, mean, np.sqrt(m2 / num), maximum


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
def _count_equal(events: Integers, window: tuple[int, int], column: int, asked: int) -> float:
    """Count the events that hold a code; NaN where the request has none."""
    if asked == 0:
        return np.nan
    num = 0
    for event in range(window[0], window[1]):
        num += events[event, column] == asked
    return float(num)


@njit(nogil=True)
def _count_distinct(events: Integers, window: tuple[int, int], column: int) -> float:
    """Count different codes; 0 says that an event has none."""
    begin, end = window
    if end - begin > MANY_EVENTS:
        return _count_in_table(events[begin:end, column])
    num = 0
    for event in range(begin, end):
        code = events[event, column]
        is_new = code != 0
        for earlier in range(begin, event):
            if events[earlier, column] == code:
                is_new = False
                break
        num += is_new
    return float(num)


@njit(nogil=True)
def _count_in_table(codes: Integers) -> float:
    """Count different codes but 0: each takes the first free place of a table from its own on.

    A code is a hash, so its low bits say where its place is. A busy address has hundreds of events
    in a day; sorting them was half of a request's features.
    """
    size = 4
    while size < 2 * codes.size:
        size *= 2
    table = np.zeros(size, np.int64)
    num = 0
    for code in codes:
        place = code & (size - 1)
        while table[place] != 0 and table[place] != code:
            place = (place + 1) & (size - 1)
        if table[place] != code:
            table[place] = code
            num += 1
    return float(num)


@njit(nogil=True)
def _find_usual_place(numbers: Floats, window: tuple[int, int]) -> tuple[float, float, float]:
    """Average where the customer paid, as a vector; NaN if unknown."""
    num, sum_x, sum_y, sum_z = 0, 0.0, 0.0, 0.0
    for event in range(window[0], window[1]):
        latitude, longitude = numbers[event, _LATITUDE], numbers[event, _LONGITUDE]
        if not (np.isnan(latitude) or np.isnan(longitude)):
            x, y, z = to_unit_vectors(latitude, longitude)
            sum_x, sum_y, sum_z = sum_x + x, sum_y + y, sum_z + z
            num += 1
    if num == 0:
        return np.nan, np.nan, np.nan
    return sum_x / num, sum_y / num, sum_z / num


@njit(nogil=True)
def _is_late(state: tuple[Integers, Integers], time: int) -> bool:
    """Whether events the request needs may have been dropped, or were merged into a tile."""
    tiles, events = state
    if len(tiles) and time <= tiles[-1, 0]:
        return True
    return len(events) > 0 and events[-1, 0] - SLACK > time
