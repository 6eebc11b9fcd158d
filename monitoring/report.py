"""The demo's summary and pictures become one page that explains the run to a design review.

The page is one file: style, pictures and text inside it, no script, no address outside. Every value
and every name is escaped; a section whose numbers the summary lacks is left out, never made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from configs.files import write_whole
from configs.pages import embed_picture, open_templates
from configs.terminal import format_name
from monitoring.drift_figure import plot_drift

METRICS = {
    "average_precision": "higher",
    "roc_auc": "higher",
    "card_precision_at_100": "higher",
    "recall_at_low_fpr": "higher",
    "brier_score": "lower",
    "expected_calibration_error": "lower",
}
"""Columns of the model table: key in the summary, and which way is better."""

CAPTIONS = {
    "precision_recall": "Precision and recall on the test period, which was touched once.",
    "calibration": "Calibration: of the transactions given a score, the share that was fraud.",
    "cost": "Cost a day as one threshold moves and the other stays; dots: what was chosen.",
    "training_curves": "The network's training and validation loss; the best epoch's weights stay.",
    "feature_importance": "What the champion looks at: its features by share of importance.",
    "latency": "Latency by percentile, closed loop, generator and service on the same cores.",
    "drift": "Each feature's distance from the training reference, before and after the change.",
}


def write_demo_page(
    path: Path, *, summary: Mapping[str, Any], figures: Mapping[str, str] | None = None
) -> None:
    """Write the demo's page.

    Args:
        path: The HTML file.
        summary: What ``summary.json`` holds. The page shows, each only where present:
            ``seconds_total``, ``seconds`` (by stage), ``transactions``, ``fraud_rate``, ``source``
            (one line: which world or file), ``data`` (further facts by name), ``split`` (period
            name to ``start_time`` and ``end_time``), ``models`` and ``baselines`` (name to
            metrics; a metric's 95 % interval under ``<metric>_interval``), ``patterns`` and
            ``slices`` (part to ``transactions``, ``frauds`` and metrics), ``champion``,
            ``operating_point`` (facts by name), ``parity``, ``serving`` (``requests``, ``errors``,
            ``qps``, ``p50_ms``, ``p99_ms``, further facts), ``drift`` (``detected``, ``features``,
            ``reason``, ``reports`` as for ``plot_drift``), ``retrain`` (``triggered``,
            ``promoted``, ``average_precision_before``, ``average_precision_after``, ``reasons``,
            further facts), ``timeline`` (list of ``time``, ``title``, ``detail``),
            ``dropped_features`` (name to reason), ``notes`` (what the run does not show) and
            ``environment`` (facts by name).
        figures: SVG texts by name; the names of ``CAPTIONS`` have a place and a caption, others
            come after the models. ``drift`` is drawn here unless given.

    Raises:
        ValueError: If a figure is not one SVG, or holds a script.
    """
    drawings = {**_draw_drift(summary), **(figures or {})}
    pictures = {
        name: embed_picture(name, svg, title=CAPTIONS.get(name, format_name(name)))
        for name, svg in drawings.items()
    }
    template = make_environment().get_template("demo_page.html.j2")
    html = template.render(
        summary=summary,
        figures=pictures,
        captions=CAPTIONS,
        metrics=_find_metrics(summary),
        other_figures=[name for name in pictures if name not in CAPTIONS],
    )
    with write_whole(path) as part:
        part.write_text(html, encoding="utf-8")


def make_environment() -> Environment:
    """Open the templates of this folder, with filters for days and scores."""
    environment = open_templates(Path(__file__).parent)
    environment.filters |= {"day": _to_day, "score": format_score}
    return environment


def format_score(value: float | list[float] | None) -> str:
    """Show a metric with three decimals, or two digits when it is tiny; an interval by its ends.

    >>> format_score(0.70123), format_score(0.00412), format_score([0.61, 0.7])
    ('0.701', '0.0041', '0.610 to 0.700')
    """
    if value is None:
        return "not known"
    if isinstance(value, list | tuple):
        return " to ".join(format_score(end) for end in value)
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def _to_day(time: str) -> str:
    """Show an ISO time as ``2026-04-02 13:05``, UTC; midnight shows as the day alone."""
    instant = pd.Timestamp(time)
    return instant.strftime("%Y-%m-%d" if instant == instant.normalize() else "%Y-%m-%d %H:%M")


def _find_metrics(summary: Mapping[str, Any]) -> dict[str, str]:
    """Keep the metrics that some model has, in the order of METRICS."""
    present = {key for model in summary.get("models", {}).values() for key in model}
    return {key: better for key, better in METRICS.items() if key in present}


def _draw_drift(summary: Mapping[str, Any]) -> dict[str, str]:
    """Draw the drift picture where the summary has its numbers."""
    reports = [
        report for report in summary.get("drift", {}).get("reports", ()) if report["columns"]
    ]
    return {"drift": plot_drift(reports)} if reports else {}
