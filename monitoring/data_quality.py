"""Served feature rows become findings about the feed, before anyone asks whether the world changed.

A broken feed looks like drift, and retraining on it would teach the model the fault. So this gate
comes first: a finding of severity ``block`` stops retraining, one of severity ``warn`` is shown.
Checks compare with the champion's reference and never raise on bad values: an empty column, text
among numbers or an infinity is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from monitoring.comparable_columns import Floats, find_finite, read_numbers

Severity = Literal["block", "warn"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the feed.

    Attributes:
        check: Which check found it: ``schema``, ``type``, ``null``, ``infinite``, ``constant``,
            ``zero``, ``range``, ``unit``, ``duplicate``, ``degraded``, ``volume`` or ``freshness``.
        column: The column it is about; empty for the window as a whole.
        severity: ``block`` stops retraining, ``warn`` does not.
        value: What was measured, in the unit the message names.
        limit: The value from which it is a finding.
        message: One line for a person.
    """

    check: str
    column: str
    severity: Severity
    value: float
    limit: float
    message: str


@dataclass(frozen=True)
class QualityLimits:
    """From where on a difference from the reference is a fault of the feed.

    World changes a model should learn from move values by factors of 1.1 to 3; wrong units move
    them by 100 or 1,000 and broken joins empty or freeze a column. The limits lie between the two.

    Attributes:
        max_null_share_increase: Null (or infinite) share above the reference's, in [0, 1].
        max_unit_ratio: Ratio of medians, either way, from which a unit must have changed.
        max_duplicate_share: Share of rows that repeat a ``transaction_id``.
        max_degraded_share: Share of answers the service gave without its feature store.
        max_out_of_range_share: Share of values further outside the reference's range than that
            range is wide.
        max_volume_ratio: Rows a day against the expected, either way: above it a warning, above
            its fifth power (2 and 32) a block.
        max_age_hours: How old the newest prediction may be.
    """

    max_null_share_increase: float
    max_unit_ratio: float
    max_duplicate_share: float
    max_degraded_share: float
    max_out_of_range_share: float = 0.05
    max_volume_ratio: float = 2.0
    max_age_hours: float = 24.0


def check_quality(
    features: pd.DataFrame,
    *,
    predictions: pd.DataFrame,
    reference: pd.DataFrame,
    names: Sequence[str],
    categorical: Sequence[str],
    until: pd.Timestamp,
    limits: QualityLimits,
    expected_rows_per_day: float | None = None,
) -> tuple[Finding, ...]:
    """Check the window's features and predictions against the champion's reference.

    Args:
        features: One row per prediction, a column per feature; bad values allowed.
        predictions: The same rows: ``transaction_id``, ``event_time`` (UTC), ``degraded_reason``.
        reference: Rows the champion was trained on: ``event_time`` and every column of ``names``.
        names: The champion's features in order.
        categorical: Those of ``names`` that hold strings.
        until: When the window was meant to end, UTC.
        limits: See ``QualityLimits``.
        expected_rows_per_day: Usual volume; ``None`` leaves the volume unchecked.

    Returns:
        Findings, the blocking ones first; empty when the feed looks sound.
    """
    findings: list[Finding] = list(_check_schema(features, names))
    numeric = [name for name in names if name in features and name not in categorical]
    numbers = read_numbers(features, numeric)
    for name in numeric:
        findings += _check_type(features[name], numbers[name])
        findings += _check_numbers(numbers[name], reference[name], limits)
    for name in (name for name in names if name in features):
        known = numbers[name] if name in numeric else features[name]
        findings += _check_nulls(known, reference[name], limits)
        findings += _check_constant(known, reference, predictions["event_time"])
    findings += _check_rows(predictions, limits)
    findings += _check_time(predictions["event_time"], until, expected_rows_per_day, limits)
    return tuple(sorted(findings, key=lambda finding: finding.severity))


def _check_schema(features: pd.DataFrame, names: Sequence[str]) -> Iterator[Finding]:
    for name in names:
        if name not in features:
            message = f"{name} is a feature of the champion and is not in the predictions"
            yield Finding("schema", name, "block", 1.0, 0.0, message)
    for name in features.columns:
        if name not in names:
            message = f"{name} is in the predictions and no feature of the champion"
            yield Finding("schema", str(name), "warn", 1.0, 0.0, message)


def _check_type(raw: pd.Series, numbers: pd.Series) -> Iterator[Finding]:
    num_text = int((raw.notna() & numbers.isna()).sum())
    if num_text:
        example = raw[raw.notna() & numbers.isna()].iloc[0]
        message = f"{raw.name} holds {num_text} values that are no numbers, as {example!r}"
        yield Finding("type", str(raw.name), "block", float(num_text), 0.0, message)


def _check_numbers(
    numbers: pd.Series, reference: pd.Series, limits: QualityLimits
) -> Iterator[Finding]:
    name = str(numbers.name)
    num_infinite = int(np.isinf(numbers.to_numpy()).sum())
    if num_infinite:
        message = f"{name} is infinite in {num_infinite} rows, which count as missing"
        yield Finding("infinite", name, "warn", float(num_infinite), 0.0, message)
    now, before = find_finite(numbers), find_finite(reference)
    if now.size == 0 or before.size == 0:
        return
    yield from _check_range(name, now, before, limits)
    yield from _check_unit(name, now, before, limits)


def _check_range(
    name: str, now: Floats, before: Floats, limits: QualityLimits
) -> Iterator[Finding]:
    low, high = before.min(), before.max()
    margin = (high - low) or max(abs(high), 1.0)
    share = float(np.mean((now < low - margin) | (now > high + margin)))
    if share > 0:
        message = (
            f"{name} lies far outside the reference's [{low:.4g}, {high:.4g}] "
            f"in {share:.2%} of rows, up to {now[np.abs(now).argmax()]:.4g}"
        )
        limit = limits.max_out_of_range_share
        yield Finding("range", name, "block" if share > limit else "warn", share, limit, message)


def _check_unit(name: str, now: Floats, before: Floats, limits: QualityLimits) -> Iterator[Finding]:
    size, usual = find_typical_size(name, now), find_typical_size(name, before)
    if size is None or usual is None:
        return
    ratio = size / usual
    if max(ratio, 1 / ratio) >= limits.max_unit_ratio:
        message = f"{name}: its median is {ratio:.3g} times the reference's, as if its unit changed"
        yield Finding("unit", name, "block", ratio, limits.max_unit_ratio, message)


def find_typical_size(name: str, values: Floats) -> float | None:
    """Return the median of positive values; a column named ``*_log`` holds log(1 + value).

    Two of them compared tell whether the unit changed, as from euros to cents.

    Args:
        name: The column's.
        values: What is not finite is left out.

    Returns:
        The median; ``None`` where a value is negative or none is positive.
    """
    values = values[np.isfinite(values)]
    if name.endswith("_log"):
        values = np.expm1(np.minimum(values, 700.0))
    if not (values > 0).any() or values.min() < 0:
        return None
    return float(np.median(values[values > 0]))


def _check_nulls(
    known: pd.Series, reference: pd.Series, limits: QualityLimits
) -> Iterator[Finding]:
    share, usual = measure_missing_share(known), measure_missing_share(reference)
    name, limit = str(known.name), min(usual + limits.max_null_share_increase, 1.0)
    if share > limit or (share == 1.0 and usual < 1.0):
        what = "is empty" if share == 1.0 else f"is missing in {share:.1%} of rows"
        message = f"{name} {what}; in the reference {usual:.1%} are missing"
        yield Finding("null", name, "block", share, limit, message)


def measure_missing_share(column: pd.Series) -> float:
    """Return the share of nulls and infinities, 1.0 for a column without rows."""
    if column.empty:
        return 1.0
    if pd.api.types.is_numeric_dtype(column):
        return float(1 - np.isfinite(column.to_numpy(np.float64)).mean())
    return float(1 - column.notna().mean())


def _check_constant(
    known: pd.Series, reference: pd.DataFrame, event_times: pd.Series
) -> Iterator[Finding]:
    """Find a column that holds one value, where no whole day of the reference ever did.

    Comparing with days keeps a weekend flag quiet in a window of three working days.
    """
    name = str(known.name)
    values = known.dropna().unique()
    if len(values) != 1 or event_times.max() - event_times.min() < pd.Timedelta(days=1):
        return
    least = int(reference.groupby(reference["event_time"].dt.floor("D"))[name].nunique().min())
    if least > 1:
        message = (
            f"{name} holds nothing but {values[0]}; "
            f"each day of the reference had at least {least} values"
        )
        yield Finding("constant", name, "block", 1.0, float(least), message)


def _check_rows(predictions: pd.DataFrame, limits: QualityLimits) -> Iterator[Finding]:
    if predictions.empty:
        return
    duplicates = float(predictions["transaction_id"].duplicated().mean())
    if duplicates > 0:
        limit = limits.max_duplicate_share
        message = f"{duplicates:.2%} of rows repeat a transaction_id"
        severity: Severity = "block" if duplicates > limit else "warn"
        yield Finding("duplicate", "transaction_id", severity, duplicates, limit, message)
    degraded = float(predictions["degraded_reason"].notna().mean())
    if degraded > 0:
        limit = limits.max_degraded_share
        reason = predictions["degraded_reason"].dropna().mode().iloc[0]
        message = f"{degraded:.2%} of answers were degraded, most often: {reason}"
        severity = "block" if degraded > limit else "warn"
        yield Finding("degraded", "degraded_reason", severity, degraded, limit, message)


def _check_time(
    event_times: pd.Series,
    until: pd.Timestamp,
    expected_rows_per_day: float | None,
    limits: QualityLimits,
) -> Iterator[Finding]:
    if event_times.empty:
        return
    age = (until - event_times.max()) / pd.Timedelta(hours=1)
    if age > limits.max_age_hours:
        message = f"the newest prediction is {age:.0f} hours older than the window's end, {until}"
        yield Finding("freshness", "event_time", "warn", age, limits.max_age_hours, message)
    days = (event_times.max() - event_times.min()) / pd.Timedelta(days=1)
    if expected_rows_per_day and days >= 1:
        ratio = len(event_times) / days / expected_rows_per_day
        limit = limits.max_volume_ratio
        if max(ratio, 1 / ratio) > limit:
            message = f"{ratio:.3g} times the usual {expected_rows_per_day:.0f} rows a day"
            severity: Severity = "block" if max(ratio, 1 / ratio) > limit**5 else "warn"
            yield Finding("volume", "", severity, ratio, limit, message)
