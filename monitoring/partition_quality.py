"""The days of a window are checked one by one: a corrupted day must not hide in a sound week.

A day that is empty, frozen or in another unit is a seventh of a week, which no check of the week as
a whole would mind, and a seventh of what a challenger would be taught.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from monitoring.comparable_columns import Floats, read_numbers
from monitoring.data_quality import Finding, QualityLimits, Severity, find_typical_size

MIN_DAY_ROWS = 50
"""Fewest rows of a day, in the window or the reference, that are judged by themselves."""
DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class _Days:
    """Columns by UTC day, categories as codes; each frame has a row per day, a column per feature.

    ``frozen`` says that a day holds one value, and not 0: a rare flag may rest for a day.
    """

    numbers: pd.DataFrame
    day_of_row: pd.Series[pd.Timestamp]
    shares: dict[str, pd.DataFrame]


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
    usual = _summarise_days(reference, reference["event_time"], present, numeric)
    days = _summarise_days(features, event_times, present, numeric)
    findings: list[Finding] = []
    for check, what in (("null", "missing"), ("constant", "one value"), ("zero", "zero")):
        seen = days.shares[check].loc[days.shares[check].index.isin(whole_days)]
        findings += _check_shares(check, what, seen, usual.shares[check], limits)
    rows_of_days = {day: np.flatnonzero((days.day_of_row == day).to_numpy()) for day in whole_days}
    for name in numeric:
        values = days.numbers[name].to_numpy()
        by_day = {day: values[rows] for day, rows in rows_of_days.items() if rows.size}
        findings += _check_units(name, by_day, usual.numbers[name].to_numpy(), limits)
    if expected_rows_per_day:
        counts = event_times.dt.floor("D").value_counts().reindex(whole_days, fill_value=0)
        findings += _check_volume(counts, expected_rows_per_day, limits)
    return tuple(findings)


def _summarise_days(
    rows: pd.DataFrame,
    event_times: pd.Series[pd.Timestamp],
    present: Sequence[str],
    numeric: Sequence[str],
) -> _Days:
    """Measure the share of missing, frozen and zero values of each column on each day."""
    numbers = read_numbers(rows, numeric).replace([np.inf, -np.inf], np.nan)
    codes = {name: pd.factorize(rows[name])[0] for name in present if name not in numeric}
    numbers = numbers.assign(
        **{name: np.where(c < 0, np.nan, c + 1.0) for name, c in codes.items()}
    )
    day_of_row = event_times.dt.floor("D")
    sizes = day_of_row.map(day_of_row.value_counts())
    kept = (sizes >= MIN_DAY_ROWS).to_numpy()
    numbers, day_of_row = numbers[kept], day_of_row[kept]
    missing = numbers.isna().groupby(day_of_row).mean()
    zero = (numbers == 0).groupby(day_of_row).mean() / (1 - missing).where(missing < 1)
    by_day = numbers.groupby(day_of_row)
    lowest = by_day.min()
    frozen = (lowest == by_day.max()) & (lowest != 0)
    shares = {"null": missing, "constant": frozen.astype(float), "zero": zero.fillna(0.0)}
    return _Days(numbers, day_of_row, shares)


def _check_shares(
    check: str, what: str, days: pd.DataFrame, usual: pd.DataFrame, limits: QualityLimits
) -> Iterator[Finding]:
    """Compare each day with the worst that the reference's days ever were."""
    worst = usual.max()
    limit = worst + limits.max_null_share_increase
    is_bad = days > limit
    for name in (str(name) for name in days if is_bad[name].any()):
        highest, least = float(days[name].max()), float(worst[name])
        message = (
            f"{name} is {what} in {highest:.0%} of the rows of "
            f"{_name_days(days.index[is_bad[name]])}; "
            f"at most {least:.0%} on a day of the reference"
        )
        yield Finding(check, name, "block", highest, float(limit[name]), message)


def _check_units(
    name: str, by_day: Mapping[pd.Timestamp, Floats], usual: Floats, limits: QualityLimits
) -> Iterator[Finding]:
    usual_size = find_typical_size(name, usual)
    if usual_size is None:
        return
    sizes = {day: find_typical_size(name, values) for day, values in by_day.items()}
    ratios = {day: size / usual_size for day, size in sizes.items() if size is not None}
    ratios = {
        day: ratio
        for day, ratio in ratios.items()
        if max(ratio, 1 / ratio) >= limits.max_unit_ratio
    }
    if ratios:
        worst = max(ratios.values(), key=lambda ratio: max(ratio, 1 / ratio))
        message = (
            f"{name}: its median is {worst:.3g} times the reference's on {_name_days(ratios)}, "
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


def _name_days(days: Iterable[pd.Timestamp]) -> str:
    return ", ".join(f"{day:%Y-%m-%d}" for day in sorted(days))
