"""A window of served features, held against the champion's reference, becomes a drift verdict.

Evidently computes each column's distance and draws the report; the thresholds, calibrated per
column on windows of the reference (see ``monitoring.reference_windows``), and the verdict (see
``monitoring.drift_verdict``) are ours. This is the only module that computes with Evidently, and it
imports it when called: that takes seconds, and Evidently phones home unless told not to.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import write_whole
from features.fraud_history import to_microseconds
from monitoring.comparable_columns import make_comparable
from monitoring.drift_verdict import SCORE, ColumnDrift, DriftLimits, DriftVerdict, weigh_columns
from monitoring.reference_windows import (
    MIN_VALUES,
    WindowPlan,
    find_thresholds,
    measure_categorical_windows,
    measure_numeric_windows,
    plan_windows,
)

NUMERIC_STATISTIC = "wasserstein"
"""Evidently's first Wasserstein distance over the reference's standard deviation. Between quantiles
of the reference it is the area between two distribution functions, an L1 Cramer-von Mises distance;
it needs no bins and suits flags as well (there it is the change of their share)."""
CATEGORICAL_STATISTIC = "jensenshannon"
"""Bounded and finite for categories that appear or vanish, where PSI depends on its filler."""
REFERENCE_RATIO = 4
"""More rows of the reference than so many times the window's would cost time and add little: its
windows are a fifth of it at most."""


def measure_drift(
    current: pd.DataFrame,
    *,
    reference: pd.DataFrame,
    categorical: Sequence[str],
    importance: Mapping[str, float],
    limits: DriftLimits,
    seed: int,
    report: Path | None = None,
) -> DriftVerdict:
    """Compare a window of predictions with the champion's reference.

    Args:
        current: One row per prediction: ``event_time`` (UTC), features, ``score``.
        reference: Rows of the champion's past with the same columns, in time order.
        categorical: Columns that hold strings; all others hold numbers.
        importance: How much each feature matters to the champion, on any scale.
        limits: See ``DriftLimits``.
        seed: For sampling rows above ``limits.max_rows``, and the reference's above
            ``REFERENCE_RATIO`` times as many.
        report: Where to write Evidently's page (and its JSON beside it); ``None`` writes none, and
            takes a fraction of the time.

    Returns:
        The verdict. Fewer than ``limits.min_rows`` rows are never drift.
    """
    if len(current) < limits.min_rows:
        return DriftVerdict(
            are_features_drifted=False,
            reason=f"not enough rows: {len(current)} of at least {limits.min_rows}",
            num_rows=len(current),
        )
    current = _sample_in_order(current, limits.max_rows, seed)
    reference = _sample_in_order(reference, REFERENCE_RATIO * limits.max_rows, seed)
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
    values = _measure_distances(before, now, categorical, thresholds)
    columns = [
        ColumnDrift(
            column=name,
            statistic=CATEGORICAL_STATISTIC if name in categorical else NUMERIC_STATISTIC,
            value=values[name],
            threshold=threshold,
            importance=importance.get(name, 0.0),
        )
        for name, threshold in thresholds.items()
    ]
    columns.sort(key=lambda column: column.value / column.threshold, reverse=True)
    are_drifted, reason, drifted_importance = weigh_columns(
        columns, min_drifted_importance=limits.min_drifted_importance
    )
    verdict = DriftVerdict(
        are_features_drifted=are_drifted,
        reason=reason,
        features=tuple(column for column in columns if column.column != SCORE),
        score=next((column for column in columns if column.column == SCORE), None),
        drifted_importance=drifted_importance,
        excluded=excluded,
        num_rows=len(current),
        num_reference_rows=len(reference),
        num_windows=len(plan.windows),
        window_days=plan.days,
        gap_days=plan.gap_days,
    )
    if report is not None and verdict.features:
        _write_report(report, before, now, verdict)
    return verdict


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
    measures = {}
    excluded: dict[str, str] = {}
    for name in reference.columns:
        num_values = int(current[name].notna().sum())
        if num_values < MIN_VALUES:
            excluded[name] = f"{num_values} values in the window; at least {MIN_VALUES} are needed"
        elif name in categorical:
            codes = pd.factorize(reference[name])[0].astype(np.int64)
            measures[name] = measure_categorical_windows(codes, plan=plan)
        else:
            measures[name] = measure_numeric_windows(reference[name].to_numpy(), plan=plan)
    thresholds = find_thresholds(
        measures, plan=plan, false_alarm_rates={name: limits.find_rate(name) for name in measures}
    )
    for name in measures.keys() - thresholds.keys():
        excluded[name] = "too few values in the reference to calibrate a threshold"
    return thresholds, excluded


def _measure_distances(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    categorical: Sequence[str],
    thresholds: Mapping[str, float],
) -> dict[str, float]:
    """Let Evidently measure the calibrated columns, and draw nothing: that takes seconds."""
    if not thresholds:
        return {}
    import_evidently()
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    def measure(name: str) -> float:
        before, now = reference[name].dropna(), current[name].dropna()
        is_text = name in categorical
        kind = ColumnType.Categorical if is_text else ColumnType.Numerical
        statistic = CATEGORICAL_STATISTIC if is_text else NUMERIC_STATISTIC
        test = get_stattest(before, now, kind, statistic)
        return float(test(before, now, kind, thresholds[name]).drift_score)

    with np.errstate(invalid="ignore"):
        # equal category shares come as NaN: rounding takes the divergence below 0, under the root
        return {name: float(np.nan_to_num(measure(name))) for name in thresholds}


def _write_report(
    report: Path, reference: pd.DataFrame, current: pd.DataFrame, verdict: DriftVerdict
) -> None:
    """Let Evidently draw its page, which carries its own scripts and fonts, and write its numbers.

    Evidently weighs all columns alike. So the share of them from which it speaks of drift is set to
    what makes it say the same as the verdict on the features.
    """
    import_evidently()
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    columns = [*verdict.features, *([verdict.score] if verdict.score is not None else [])]
    names = [column.column for column in columns]
    is_text = {column.column: column.statistic == CATEGORICAL_STATISTIC for column in columns}
    definition = DataDefinition(
        numerical_columns=[name for name in names if not is_text[name]],
        categorical_columns=[name for name in names if is_text[name]],
    )
    alike = len(verdict.drifted) + (0 if verdict.are_features_drifted else 1)
    metrics: list[Any] = [
        DataDriftPreset(
            columns=[feature.column for feature in verdict.features],
            num_method=NUMERIC_STATISTIC,
            cat_method=CATEGORICAL_STATISTIC,
            per_column_threshold={f.column: f.threshold for f in verdict.features},
            drift_share=alike / len(verdict.features),
        )
    ]
    if verdict.score is not None:
        metrics.append(
            ValueDrift(column=SCORE, method=NUMERIC_STATISTIC, threshold=verdict.score.threshold)
        )
    with np.errstate(invalid="ignore", divide="ignore"):  # it correlates constant columns too
        snapshot = Report(metrics).run(
            Dataset.from_pandas(current[names], data_definition=definition),
            Dataset.from_pandas(reference[names], data_definition=definition),
        )
    with write_whole(report) as part:
        snapshot.save_html(str(part))
    with write_whole(report.with_suffix(".json")) as part:
        snapshot.save_json(str(part))
    with write_whole(report.with_name("snapshot.json")) as part:
        part.write_text(snapshot.dumps(), encoding="utf-8")


def import_evidently() -> None:
    """Import Evidently for the first time, its telemetry off and its imports' notes mute."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # Evidently imports its user interface, written for an older litestar
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        importlib.import_module("evidently")
