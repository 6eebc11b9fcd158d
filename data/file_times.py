"""A file's times, in whatever form, become UTC microseconds; a form that is not clear is an error.

Invariant: no time is ever guessed to be UTC. It has an offset, or a zone or origin was named for
it. A local time that a clock change makes ambiguous or impossible is left out (NaT), for the
contract's quarantine.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from pydantic import AwareDatetime, model_validator

from configs.setting_types import Frozen
from data.column_types import convert_to_times

MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "D": 86_400_000_000,
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_EXACT = 2**53  # microseconds a float64 still counts one by one: to the year 2255
OFFSET = r":\d{2}(?:\.\d+)?\s*(Z|[+-]\d{2}(?::?\d{2})?)$"


class TimeColumn(Frozen):
    """How to read one column of times.

    Attributes:
        column: Its name in the file.
        unit: What a number counts, since ``origin``.
        origin: What numbers count from; 1970-01-01 UTC unless given.
        time_zone: The zone of times without an offset, as ``Europe/Paris``.
        format: How texts are written, in ``strptime`` codes; ISO 8601 unless given.
    """

    column: str
    unit: Literal["us", "ms", "s", "m", "h", "D"] | None = None
    origin: AwareDatetime | None = None
    time_zone: str | None = None
    format: str | None = None

    @model_validator(mode="after")
    def _check_combination(self) -> TimeColumn:
        if self.unit and (self.time_zone or self.format):
            raise ValueError("unit is for numbers, time_zone and format are for texts: give one")
        if self.origin and not self.unit:
            raise ValueError("origin needs a unit, such as unit: s")
        if self.time_zone:
            try:
                ZoneInfo(self.time_zone)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"there is no time zone '{self.time_zone}'") from error
        return self


def read_times(values: pd.Series, *, source: TimeColumn) -> pd.Series:
    """Read a column of times.

    Args:
        values: Numbers, texts or timestamps.
        source: How to read them.

    Returns:
        UTC times in microseconds, in the same order; NaT where there is none or it is unreadable.

    Raises:
        ValueError: If numbers come without a unit, or times without an offset and without a time
            zone, or with offsets that differ.
    """
    if source.unit:
        return _read_numbers(values, unit=source.unit, origin=source.origin)
    if pd.api.types.is_numeric_dtype(values):
        raise ValueError(
            f"column {source.column} holds numbers; say what they count, as "
            f"{{column: {source.column}, unit: s, origin: 1970-01-01T00:00:00Z}}"
        )
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return convert_to_times(values)
    if pd.api.types.is_datetime64_dtype(values) and source.time_zone:
        return _localize(values, time_zone=source.time_zone)
    return _read_texts(values.astype(object), source=source)


def _read_numbers(values: pd.Series, *, unit: str, origin: datetime | None) -> pd.Series:
    """Count ``unit`` from ``origin``; what is no number, or too large to be a time, is NaT."""
    counted = pd.to_numeric(values, errors="coerce").astype("float64") * MICROSECONDS[unit]
    is_time = counted.abs() < LARGEST_EXACT
    elapsed = counted.where(is_time, 0.0).round().astype(np.int64)
    start = pd.Timestamp(origin or EPOCH).tz_convert("UTC").as_unit("us")
    return (start + pd.to_timedelta(elapsed, unit="us").dt.as_unit("us")).where(is_time)


def _read_texts(texts: pd.Series, *, source: TimeColumn) -> pd.Series:
    """Parse texts; they share one offset, or a zone is named for those that have none."""
    texts = texts.map(str, na_action="ignore").str.strip().str.replace(r"\s*UTC$", "Z", regex=True)
    times = pd.to_datetime(
        texts, format=source.format or "ISO8601", errors="coerce", utc=True
    ).dt.as_unit("us")
    offsets = texts.where(times.notna()).str.extract(OFFSET, expand=False)
    is_local = times.notna() & offsets.isna()
    if source.time_zone is None:
        _check_offsets(texts, offsets=offsets, is_local=is_local, column=source.column)
        return times
    local = times.where(is_local).dt.tz_localize(None)
    return times.where(~is_local, _localize(local, time_zone=source.time_zone))


def _localize(local: pd.Series, *, time_zone: str) -> pd.Series:
    """Take local times for what they are in their zone; NaT where a clock change forbids it."""
    known = local.dt.tz_localize(time_zone, ambiguous="NaT", nonexistent="NaT")
    return convert_to_times(known)


def _check_offsets(
    texts: pd.Series, *, offsets: pd.Series, is_local: pd.Series, column: str
) -> None:
    """Refuse times without an offset, and times whose offsets differ."""
    advice = f"write UTC, or name the zone: {{column: {column}, time_zone: Europe/Paris}}"
    if is_local.any():
        example = texts[is_local].iloc[0]
        others = texts[offsets.notna()].head(1).tolist()
        mixed = f" and others with one, as '{others[0]}'" if others else ""
        raise ValueError(
            f"column {column} holds times without a time zone, as '{example}'{mixed}; {advice}"
        )
    same = offsets.dropna().str.replace(":", "").replace({"Z": "+0000"}).str.ljust(5, "0")
    distinct = same.drop_duplicates()
    if len(distinct) > 1:
        first, second = texts[distinct.index[:2]]
        raise ValueError(f"column {column} mixes time zones, as '{first}' and '{second}'; {advice}")
