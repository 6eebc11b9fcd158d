"""The days of a window are checked one by one: a corrupted day must not hide in a sound week.

A day that is empty, frozen or in another unit is a seventh of a week, which no check of the week as
a whole would mind, and a seventh of what a challenger would be taught.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from monitoring.comparable_columns import Floats, read_numbers
from monitoring.data_quality import (
    Finding,
    QualityLimits,
    Severity,
    measure_missing_share,
    measure_unit,
)

MIN_DAY_ROWS = 50
"""Fewest rows of a day, in the window or the reference, that are judged by themselves."""
DAY = pd.Timedelta(days=1)

Days = Mapping[pd.Timestamp, pd.DataFrame]


def check_partitions(
    features: pd.DataFrame,
    *,
    event_times: pd.Series[pd.Timestamp],
    since: pd.Timestamp,
    until: pd.Timestamp,
    reference: pd.DataFrame,
    names: Sequence[str],
    categorical: Sequence[str],
    limits: QualityLimits,
    expected_rows_per_day: float | None = None,
) -> tuple[Finding, ...]:
    """Check each whole UTC day of the window against the days of the champion's reference.

    A part of a day is left to the check of the window: it has hours of its own, and would seem
    frozen in whatever goes by the hour.

    Args:
        features: One row per prediction, a column per feature; bad values allowed.
        event_times: When each happened, UTC; same index.
        since: First instant of the window.
        until: First instant after it.
        reference: Rows the champion was trained on: ``event_time`` and every column of ``names``.
        names: The champion's features.
        categorical: Those of ``names`` that hold strings.
        limits: See ``QualityLimits``.
        expected_rows_per_day: Usual volume; ``None`` leaves the volume unchecked.

    Returns:
        At most one finding per column and check, naming its days; and one per day whose volume is
        off. Empty if every day looks sound.
    """
    present = [name for name in names if name in features]
    numeric = [name for name in present if name not in categorical]
    whole_days = pd.date_range(since.ceil("D"), until.floor("D") - DAY, freq="D")
    known = read_numbers(features, numeric).assign(
        **{name: features[name] for name in present if name in categorical}
    )
    days = {
        day: rows
        for day, rows in _split_days(known, event_times).items()
        if day in whole_days
    }
    usual_days = _split_days(reference[present], reference["event_time"])
    findings: list[Finding] = []
    if usual_days:
        for name in present:
            findings += _check_column(name, days, usual_days, limits, is_number=name in numeric)
    if expected_rows_per_day:
        counts = event_times.dt.floor("D").value_counts().reindex(whole_days, fill_value=0)
        findings += _check_volume(counts, expected_rows_per_day, limits)
    return tuple(findings)


def _split_days(rows: pd.DataFrame, event_times: pd.Series[pd.Timestamp]) -> Days:
    return {
        pd.Timestamp(day): part
        for day, part in rows.groupby(event_times.dt.floor("D"))
        if len(part) >= MIN_DAY_ROWS
    }


def _check_column(
    name: str, days: Days, usual_days: Days, limits: QualityLimits, *, is_number: bool
) -> Iterator[Finding]:
    """Compare each day with the worst the reference's days ever were."""
    usual = [part[name] for part in usual_days.values()]
    checks = {"null": (measure_missing_share, "missing"), "constant": (_measure_frozen_share, "one value")}
    if is_number:
        checks["zero"] = (_measure_zero_share, "zero")
    for check, (measure, what) in checks.items():
        worst = max(map(measure, usual))
        limit = worst + limits.max_null_share_increase
        shares = {day: measure(part[name]) for day, part in days.items()}
        bad = [day for day, share in shares.items() if share > limit]
        if bad:
            message = (
                f"{name} is {what} in {max(shares.values()):.0%} of the rows of {_name_days(bad)}; "
                f"at most {worst:.0%} on a day of the reference"
            )
            yield Finding(check, name, "block", max(shares.values()), limit, message)
    if is_number:
        yield from _check_units(name, days, np.concatenate([np.asarray(c) for c in usual]), limits)


def _measure_frozen_share(column: pd.Series) -> float:
    """Return the share of the commonest value among known ones; 0 for a column without any."""
    counts = column.value_counts()
    return float(counts.iloc[0] / counts.sum()) if len(counts) else 0.0


def _measure_zero_share(column: pd.Series) -> float:
    """Return the share of zeros among known values; 0 for a column without any."""
    known = column.dropna()
    return float((known == 0).mean()) if len(known) else 0.0


def _check_units(
    name: str, days: Days, usual: Floats, limits: QualityLimits
) -> Iterator[Finding]:
    ratios = {
        day: measure_unit(name, part[name].to_numpy(dtype=np.float64), usual)
        for day, part in days.items()
    }
    jumped = {
        day: ratio
        for day, ratio in ratios.items()
        if ratio is not None and max(ratio, 1 / ratio) >= limits.max_unit_ratio
    }
    if jumped:
        worst = max(jumped.values(), key=lambda ratio: max(ratio, 1 / ratio))
        message = (
            f"{name}: its median is {worst:.3g} times the reference's on {_name_days(jumped)}, "
            "as if its unit changed"
        )
        yield Finding("unit", name, "block", worst, limits.max_unit_ratio, message)


def _check_volume(
    counts: pd.Series[int], expected_rows_per_day: float, limits: QualityLimits
) -> Iterator[Finding]:
    """Compare the rows of each day with the usual; a day without any counts as a thousandth."""
    limit = limits.max_volume_ratio
    for day, rows in counts.items():
        ratio = max(rows / expected_rows_per_day, 0.001)
        if max(ratio, 1 / ratio) > limit:
            severity: Severity = "block" if max(ratio, 1 / ratio) > limit**5 else "warn"
            message = f"{rows} rows on {day:%Y-%m-%d}, usually {expected_rows_per_day:.0f} a day"
            yield Finding("volume", "", severity, ratio, limit, message)


def _name_days(days: Sequence[pd.Timestamp] | Mapping[pd.Timestamp, float]) -> str:
    return ", ".join(f"{day:%Y-%m-%d}" for day in sorted(days))
