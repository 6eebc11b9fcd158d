"""Columns as they come in a file become text, float64, flags or UTC microseconds.

Invariant: what is missing stays missing, and what is there but cannot be read does not pass for
missing: numbers and flags become infinity, which no rule of the contract lets pass.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
FLAG_TEXTS = {"true": 1.0, "false": 0.0}


def convert_to_text(values: pd.Series) -> pd.Series:
    """Write ids and categories as text; whole floats lose their ``.0``; "" counts as missing.

    >>> convert_to_text(pd.Series([13926.0, None])).tolist()
    ['13926', None]
    """
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    texts = values.astype(object)
    is_missing = texts.isna()
    if pd.api.types.infer_dtype(texts, skipna=True) != "string":
        texts = texts.astype(str)
    is_missing |= texts == ""
    return texts.where(~is_missing, None) if is_missing.any() else texts


def convert_to_numbers(values: pd.Series) -> pd.Series:
    """Read numbers; what is there but is none becomes infinity.

    >>> convert_to_numbers(pd.Series(["1.5", "a lot", None])).tolist()
    [1.5, inf, nan]
    """
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    return numbers.mask(numbers.isna() & values.notna(), np.inf)


def convert_to_flags(values: pd.Series) -> pd.Series:
    """Read true and false, as such, as text or as 1 and 0; anything else there becomes infinity.

    >>> convert_to_flags(pd.Series([True, "false", "1", "maybe", None])).tolist()
    [1.0, 0.0, 1.0, inf, nan]
    """
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        return values.astype("float64")
    texts = values.astype(object).where(values.notna(), None)
    numbers = texts.map(lambda value: FLAG_TEXTS.get(str(value).lower(), value))
    return convert_to_numbers(numbers)


def convert_to_times(values: pd.Series) -> pd.Series:
    """Bring times of any zone to UTC microseconds.

    Raises:
        ValueError: If the column does not hold times with a time zone.
    """
    if not isinstance(values.dtype, pd.DatetimeTZDtype):
        raise ValueError(
            f"column {values.name} must hold times with a time zone (UTC); it holds {values.dtype}"
        )
    times: pd.Series = values.dt.tz_convert("UTC").dt.as_unit("us")
    return times


def convert_extra(values: pd.Series) -> pd.Series:
    """Bring a user's own column to float64 where it holds numbers or flags, else to text."""
    is_flags = pd.api.types.infer_dtype(values, skipna=True) == "boolean"
    if is_flags or pd.api.types.is_numeric_dtype(values):
        return values.astype("float64")
    return convert_to_text(values)
