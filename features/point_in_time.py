"""Keys and times become matches: for each row, a table's latest row at or before its time.

The table's rows are grouped by entity, in time order within each, so a match is one binary search
in its entity's stretch. Rows may come in any order; one whose key is missing, or is not in the
table, has no match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numba import njit

from features.windows import Integers, group_rows

FOREVER = int(np.iinfo(np.int64).max)
"""An age that no match is too old for."""


class SharedCodes(NamedTuple):
    """Entities of a table and of rows, coded alike in ``[0, num)``; -1 is a missing key."""

    table: Integers
    rows: Integers
    num: int


def code_entities(
    table_keys: Sequence[pa.ChunkedArray], row_keys: Sequence[pa.ChunkedArray]
) -> SharedCodes:
    """Number the entities of a table and of the rows to be joined with it.

    Args:
        table_keys: The table's key columns, at least one.
        row_keys: The rows' columns for the same keys, in the same order.

    Returns:
        Equal codes for equal keys; -1 where any key column is null.

    >>> shops, asked = pa.chunked_array([["a", "b"]]), pa.chunked_array([["b", None, "c"]])
    >>> code_entities([shops], [asked]).rows.tolist()
    [1, -1, 2]
    """
    codes, num = _code_column(table_keys[0], row_keys[0])
    for table_key, row_key in zip(table_keys[1:], row_keys[1:], strict=True):
        more, num_more = _code_column(table_key, row_key)
        is_missing = (codes < 0) | (more < 0)
        # Numbered anew after each column: a product of many columns' numbers would overflow.
        codes, kept = pd.factorize(codes * num_more + more)
        codes[is_missing], num = -1, len(kept)
    num_table = len(table_keys[0])
    return SharedCodes(codes[:num_table], codes[num_table:], num)


def _code_column(table_key: pa.ChunkedArray, row_key: pa.ChunkedArray) -> tuple[Integers, int]:
    """Code the table's values, then the rows'."""
    types = (_get_value_type(table_key), _get_value_type(row_key))
    key_type = next((known for known in types if not pa.types.is_null(known)), pa.string())
    chunks = [*_encode(table_key, key_type).chunks, *_encode(row_key, key_type).chunks]
    keys = pa.chunked_array(chunks, pa.dictionary(pa.int32(), key_type)).unify_dictionaries()
    codes = [chunk.indices.fill_null(-1).to_numpy() for chunk in keys.chunks]
    num = max((len(chunk.dictionary) for chunk in keys.chunks), default=0)
    return np.concatenate([np.empty(0, np.int64), *codes]).astype(np.int64, copy=False), num


def _get_value_type(keys: pa.ChunkedArray) -> pa.DataType:
    """Return the type of the keys themselves: null, where every one is missing."""
    return keys.type.value_type if pa.types.is_dictionary(keys.type) else keys.type


def _encode(keys: pa.ChunkedArray, key_type: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(keys.type):
        return keys.cast(pa.dictionary(pa.int32(), key_type))
    return keys.cast(key_type).dictionary_encode()


def find_latest(
    codes: SharedCodes, table_times: Integers, row_times: Integers, *, max_age: int = FOREVER
) -> Integers:
    """Find each row's match: its entity's latest row in ``[time - max_age, time]``.

    Args:
        codes: From ``code_entities``.
        table_times: Nanoseconds, in any order. Shape ``(table rows,)``.
        row_times: Nanoseconds, in any order. Shape ``(rows,)``.
        max_age: Nanoseconds.

    Returns:
        Positions in the table, -1 without a match. Shape ``(rows,)``. Of an entity's rows at one
        instant the table's last one is found.

    >>> codes = SharedCodes(np.array([0, 0, 1]), np.array([0, 1, 0]), num=2)
    >>> find_latest(codes, np.array([10, 20, 30]), np.array([20, 29, 9])).tolist()
    [1, -1, -1]
    """
    if _is_grouped(codes.table, table_times):
        starts = np.searchsorted(codes.table, np.arange(codes.num + 1))
        return np.asarray(_find_latest(table_times, starts, codes.rows, row_times, max_age))
    order, starts = group_rows(codes.table, table_times, num_entities=codes.num)
    found = _find_latest(table_times[order], starts, codes.rows, row_times, max_age)
    return np.asarray(np.append(order, -1)[found])


def _is_grouped(codes: Integers, times: Integers) -> bool:
    """Say whether entities stand one after the other already, each in time order."""
    next_code, next_time = codes[1:], times[1:]
    is_later = (next_code == codes[:-1]) & (next_time >= times[:-1])
    return bool(np.all(is_later | (next_code > codes[:-1])))


@njit(cache=True, nogil=True)
def _find_latest(
    times: Integers, starts: Integers, row_codes: Integers, row_times: Integers, max_age: int
) -> Integers:
    found = np.full(row_codes.size, -1)
    for row in range(row_codes.size):
        if row_codes[row] < 0:
            continue
        start, time = starts[row_codes[row]], row_times[row]
        low, high = start, starts[row_codes[row] + 1]
        while low < high:  # the first later row of the entity lies in [low, high]
            middle = (low + high) // 2
            if times[middle] <= time:
                low = middle + 1
            else:
                high = middle
        if low > start and time - times[low - 1] <= max_age:
            found[row] = low - 1
    return found
