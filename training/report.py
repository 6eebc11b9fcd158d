"""A training run's curves become ``report.json`` and pictures, for the page and for MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.files import write_json, write_whole
from training.calibration import IDENTITY
from training.candidates import Candidate
from training.encoding import Floats
from training.evaluation import trace_calibration, trace_precision_recall
from training.operating_point import Prices, Thresholds, trace_costs
from training.plots import (
    plot_calibration,
    plot_costs,
    plot_feature_importance,
    plot_precision_recall,
    plot_training_curves,
)
from training.rows import LabelledRows

TRAINING_CURVES = "training_curves"


def trace_comparison(rows: LabelledRows, scores: Mapping[str, Floats]) -> dict[str, Any]:
    """Trace what compares models and baselines: precision against recall.

    Args:
        rows: Labelled rows of the test period.
        scores: Probabilities by model or baseline.

    Returns:
        Curves by name.
    """
    return {name: trace_precision_recall(rows.is_fraud, values) for name, values in scores.items()}


def trace_candidate(
    candidate: Candidate, rows: LabelledRows, *, thresholds: Thresholds, prices: Prices
) -> dict[str, Any]:
    """Trace what one model is like: calibration, costs, importance and its training.

    Args:
        candidate: The model.
        rows: Labelled rows of the test period.
        thresholds: Its operating point.
        prices: What outcomes cost.

    Returns:
        ``calibration``, ``cost``, ``feature_importance`` and, for a network, ``training_curves``.
    """
    margins = candidate.scorer.margins(rows.matrix)
    scores = candidate.calibration.apply(margins)
    curves: dict[str, Any] = {
        "calibration": {
            "before": trace_calibration(rows.is_fraud, IDENTITY.apply(margins)),
            "after": trace_calibration(rows.is_fraud, scores),
        },
        "cost": trace_costs(
            scores,
            is_fraud=rows.is_fraud,
            amounts=rows.amounts,
            days=rows.days,
            prices=prices,
            thresholds=thresholds,
        ),
        "feature_importance": candidate.importance,
    }
    if "valid_loss" in candidate.curves:
        valid = candidate.curves["valid_loss"]
        curves[TRAINING_CURVES] = {
            "train": list(candidate.curves["train_loss"]),
            "valid": list(valid),
            "best_epoch": valid.index(min(valid)),
        }
    return curves


def draw_candidate(kind: str, curves: Mapping[str, Any]) -> dict[str, str]:
    """Draw what ``trace_candidate`` traced; SVG texts by name."""
    pictures = {
        "calibration": plot_calibration(curves["calibration"], model=kind),
        "cost": plot_costs(curves["cost"]),
        "feature_importance": plot_feature_importance(curves["feature_importance"]),
    }
    if TRAINING_CURVES in curves:
        pictures[TRAINING_CURVES] = plot_training_curves(curves[TRAINING_CURVES])
    return pictures


def write_report(
    folder: Path,
    *,
    comparison: Mapping[str, Any],
    candidates: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, Mapping[str, str]],
    winner: str,
) -> list[Path]:
    """Write a run's curves and pictures.

    Args:
        folder: Where to.
        comparison: From ``trace_comparison``.
        candidates: From ``trace_candidate``, by kind.
        pictures: From ``draw_candidate``, by kind.
        winner: The kind whose calibration, costs and importance are shown.

    Returns:
        What was written: ``report.json``, ``precision_recall.svg``, the winner's pictures and a
        network's ``training_curves.svg``.
    """
    document = {
        "winner": winner,
        "precision_recall": dict(comparison),
        "models": {kind: dict(curves) for kind, curves in candidates.items()},
    }
    write_json(folder / "report.json", document)
    shown = {"precision_recall": plot_precision_recall(comparison)}
    for kind, drawn in pictures.items():
        shown |= {name: drawn[name] for name in drawn if kind == winner or name == TRAINING_CURVES}
    for name, svg in shown.items():
        with write_whole(folder / f"{name}.svg") as part:
            part.write_text(svg, encoding="utf-8")
    return [folder / "report.json", *(folder / f"{name}.svg" for name in shown)]
