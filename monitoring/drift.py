"""A window of served features, held against the champion's reference, becomes a drift verdict.

Evidently computes each column's distance and draws the report; the thresholds, calibrated per
column on windows of the reference (see ``monitoring.reference_windows``), and the verdict are ours.
This is the only module that imports Evidently, and it does so when called: importing it takes
seconds, and it phones home unless told not to.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import write_whole
from features.fraud_history import to_microseconds
from monitoring.comparable_columns import make_comparable
from monitoring.reference_windows import (
    MIN_VALUES,
    WindowPlan,
    find_categorical_threshold,
    find_numeric_threshold,
    plan_windows,
)

NUMERIC_STATISTIC = "wasserstein"
"""Evidently's first Wasserstein distance over the reference's standard deviation: it grows with the
size of a shift, needs no bins, and suits flags as well (there it is the change of their share)."""
CATEGORICAL_STATISTIC = "jensenshannon"
"""Bounded and finite for categories that appear or vanish, where PSI depends on its filler."""
SCORE = "score"


@dataclass(frozen=True)
class DriftLimits:
    """When to believe in drift; see ``monitoring`` in ``configs/fraud.yaml``."""

    min_rows: int
    max_rows: int
    num_reference_windows: int
    false_alarm_rate: float
    min_drifted_features: int


@dataclass(frozen=True)
class ColumnDrift:
    """One column's distance from the reference and the least that counts as drift."""

    column: str
    statistic: str
    value: float
    threshold: float

    @property
    def is_drifted(self) -> bool:
        """Whether the distance reaches the threshold."""
        return self.value >= self.threshold

    def describe(self) -> dict[str, str | float | bool]:
        """Return the numbers for JSON."""
        return {
            "statistic": self.statistic,
            "value": self.value,
            "threshold": self.threshold,
            "drifted": self.is_drifted,
        }


@dataclass(frozen=True)
class DriftVerdict:
    """What the window says about the world.

    Attributes:
        is_detected: Enough features drifted.
        reason: One line for a person.
        features: Every feature compared, the furthest above its threshold first.
        score: The model's score; shown, and no part of the verdict: it moves with the features.
        excluded: Columns that could not be compared, with the reason.
        num_rows: Rows compared, after sampling.
        num_reference_rows: Rows they were compared with.
        num_windows: Reference windows behind the thresholds.
        window_days: Length of each.
        gap_days: How far ahead the reference's trends were carried.
    """

    is_detected: bool
    reason: str
    features: tuple[ColumnDrift, ...] = ()
    score: ColumnDrift | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    num_rows: int = 0
    num_reference_rows: int = 0
    num_windows: int = 0
    window_days: float = 0.0
    gap_days: float = 0.0

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the drifted features, the furthest above its threshold first."""
        return tuple(feature.column for feature in self.features if feature.is_drifted)


def measure_drift(
    current: pd.DataFrame,
    *,
    reference: pd.DataFrame,
    categorical: Sequence[str],
    limits: DriftLimits,
    seed: int,
    report: Path | None = None,
) -> DriftVerdict:
    """Compare a window of predictions with the champion's reference.

    Args:
        current: One row per prediction: ``event_time`` (UTC), features, ``score``.
        reference: Rows of the champion's past with the same columns, in time order.
        categorical: Columns that hold strings; all others hold numbers.
        limits: See ``DriftLimits``.
        seed: For sampling rows above ``limits.max_rows``.
        report: Where to write Evidently's page (and its JSON beside it); ``None`` writes none.

    Returns:
        The verdict. Fewer than ``limits.min_rows`` rows are never drift.
    """
    if len(current) < limits.min_rows:
        return DriftVerdict(
            is_detected=False,
            reason=f"not enough rows: {len(current)} of at least {limits.min_rows}",
            num_rows=len(current),
        )
    current = _sample_in_order(current, limits.max_rows, seed)
    times = to_microseconds(current["event_time"])
    plan = plan_windows(
        to_microseconds(reference["event_time"]),
        start_time=int(times.min()),
        end_time=int(times.max()),
        num_windows=limits.num_reference_windows,
        max_rows=limits.max_rows,
        seed=seed,
    )
    names = [name for name in reference if name in current and name != "event_time"]
    before, now = make_comparable(reference[names], current=current[names], categorical=categorical)
    thresholds, excluded = _calibrate(before, now, plan, categorical, limits)
    values = _run_evidently(before, now, categorical, thresholds, limits, report)
    columns = [
        ColumnDrift(
            column=name,
            statistic=CATEGORICAL_STATISTIC if name in categorical else NUMERIC_STATISTIC,
            value=values[name],
            threshold=threshold,
        )
        for name, threshold in thresholds.items()
    ]
    columns.sort(key=lambda column: column.value / column.threshold, reverse=True)
    features = tuple(column for column in columns if column.column != SCORE)
    num_drifted = sum(feature.is_drifted for feature in features)
    return DriftVerdict(
        is_detected=num_drifted >= limits.min_drifted_features,
        reason=f"{num_drifted} of {len(features)} features drifted; "
        f"an alarm needs {limits.min_drifted_features}",
        features=features,
        score=next((column for column in columns if column.column == SCORE), None),
        excluded=excluded,
        num_rows=len(current),
        num_reference_rows=len(reference),
        num_windows=len(plan.windows),
        window_days=plan.days,
        gap_days=plan.gap_days,
    )


def _sample_in_order(rows: pd.DataFrame, max_rows: int, seed: int) -> pd.DataFrame:
    """Draw ``max_rows`` rows without replacement, keeping their order."""
    if len(rows) <= max_rows:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), max_rows, replace=False)
    return rows.iloc[np.sort(chosen)]


def _calibrate(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    plan: WindowPlan,
    categorical: Sequence[str],
    limits: DriftLimits,
) -> tuple[dict[str, float], dict[str, str]]:
    """Find each column's threshold, or say why it cannot be compared."""
    thresholds: dict[str, float] = {}
    excluded: dict[str, str] = {}
    for name in reference.columns:
        num_values = int(current[name].notna().sum())
        if num_values < MIN_VALUES:
            excluded[name] = f"{num_values} values in the window; at least {MIN_VALUES} are needed"
            continue
        if name in categorical:
            codes = pd.factorize(reference[name])[0].astype(np.int64)
            threshold = find_categorical_threshold(
                codes, plan=plan, false_alarm_rate=limits.false_alarm_rate
            )
        else:
            threshold = find_numeric_threshold(
                reference[name].to_numpy(), plan=plan, false_alarm_rate=limits.false_alarm_rate
            )
        if threshold is None:
            excluded[name] = "too few values in the reference to calibrate a threshold"
        else:
            thresholds[name] = threshold
    return thresholds, excluded


def _run_evidently(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    categorical: Sequence[str],
    thresholds: Mapping[str, float],
    limits: DriftLimits,
    report: Path | None,
) -> dict[str, float]:
    """Let Evidently measure the calibrated columns; return each one's distance."""
    names = list(thresholds)
    features = [name for name in names if name != SCORE]
    if not features:
        return {}
    import_evidently()
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(
        numerical_columns=[name for name in names if name not in categorical],
        categorical_columns=[name for name in names if name in categorical],
    )
    metrics: list[Any] = [
        DataDriftPreset(
            columns=features,
            num_method=NUMERIC_STATISTIC,
            cat_method=CATEGORICAL_STATISTIC,
            per_column_threshold={name: thresholds[name] for name in features},
            drift_share=limits.min_drifted_features / len(features),
        )
    ]
    if SCORE in thresholds:
        metrics.append(
            ValueDrift(column=SCORE, method=NUMERIC_STATISTIC, threshold=thresholds[SCORE])
        )
    with np.errstate(invalid="ignore", divide="ignore"):  # it correlates constant columns too
        snapshot = Report(metrics).run(
            Dataset.from_pandas(current[names], data_definition=definition),
            Dataset.from_pandas(reference[names], data_definition=definition),
        )
    if report is not None:
        _write_report(snapshot, report)
    measured = (metric for metric in snapshot.dict()["metrics"] if "column" in metric["config"])
    # equal category shares come as NaN: rounding takes the Jensen-Shannon divergence below 0
    return {
        metric["config"]["column"]: float(np.nan_to_num(metric["value"])) for metric in measured
    }


def import_evidently() -> None:
    """Import Evidently for the first time, its telemetry off and its imports' notes mute."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # Evidently imports its user interface, written for an older litestar
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        importlib.import_module("evidently")


def _write_report(snapshot: Any, report: Path) -> None:  # noqa: ANN401 (Evidently ships no types)
    """Write Evidently's page, which carries its own scripts and fonts, and its numbers as JSON.

    The snapshot holds what the page shows, for Evidently's workspace.
    """
    with write_whole(report) as part:
        snapshot.save_html(str(part))
    with write_whole(report.with_suffix(".json")) as part:
        snapshot.save_json(str(part))
    with write_whole(report.with_name("snapshot.json")) as part:
        part.write_text(snapshot.dumps(), encoding="utf-8")
