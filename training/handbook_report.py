"""The handbook's rows become files and pictures: what was measured beside what was published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from configs.benchmark import Target
from configs.files import write_json, write_whole
from training.handbook_protocol import METRICS
from training.handbook_published import PREQUENTIAL
from training.plots import render_figure

MAX_DIFFERENCE = 0.005
MAX_UNANNOUNCED_AUC = 0.55
"""Chance is 0.5; over four test weeks its standard error is about 0.02."""
OURS = "#1f6feb"


def build_targets(
    single_split: Iterable[Mapping[str, Any]], prequential: Sequence[Mapping[str, Any]]
) -> list[Target]:
    """State what the rows are held to: the published tables, and beating the best of them.

    Args:
        single_split: Rows, all with published figures.
        prequential: Rows, our pipeline's first.
    """
    pipeline, *others = prequential
    compared = {f"{row['name']}, single split": row for row in single_split}
    compared |= {
        f"{row['name']}, prequential": row
        for row in others
        if row["average_precision_published"] is not None
    }
    reproduced = [
        Target(
            f"{name}: largest difference",
            max(abs(row[f"{metric}_difference"]) for metric in METRICS),
            MAX_DIFFERENCE,
            "at_most",
        )
        for name, row in compared.items()
    ]
    return [
        *reproduced,
        Target(
            "ours: AUC on frauds nothing announced (a leak above)",
            pipeline["roc_auc_unannounced"],
            MAX_UNANNOUNCED_AUC,
            "at_most",
        ),
        Target("ours: average precision", pipeline["average_precision"], 0.70, "at_least"),
        Target("ours: card precision@100", pipeline["card_precision_at_100"], 0.305, "at_least"),
    ]


def build_table(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Lay rows out for a terminal: each metric, and in brackets the published one.

    >>> row = {"name": "coin", "roc_auc": 0.5004, "roc_auc_published": 0.5}
    >>> build_table([row])
    {'coin': {'roc_auc': '0.500 (0.500, +0.000)'}}
    """
    return {
        str(row["name"]): {
            metric: _compare(row, metric)
            for metric in METRICS
            if metric in row or f"{metric}_published" in row
        }
        for row in rows
    }


def build_settings(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Say how each prequential row was set, how that validated, and how each test week went."""
    return {
        str(row["name"]): {
            "settings": row["settings"],
            "chosen by our validation": row["is_chosen_here"],
            "average precision, validation": f"{row['average_precision_validation']:.3f}",
            "test weeks": " ".join(f"{week:.3f}" for week in row["average_precision_folds"][::-1]),
        }
        for row in rows
    }


def write_results(
    folder: Path, result: Mapping[str, Any], *, rows: Mapping[str, list[dict[str, Any]]]
) -> list[str]:
    """Write ``handbook.json``, ``handbook.csv`` and two pictures.

    Args:
        folder: Where to.
        result: The whole result, ``rows`` included.
        rows: Its rows by protocol: ``single_split``, ``prequential``, ``ablations``.

    Returns:
        The files' paths.
    """
    document, table = folder / "handbook.json", folder / "handbook.csv"
    write_json(document, dict(result))
    flat = [
        {"protocol": protocol} | {key: value for key, value in row.items() if "_folds" not in key}
        for protocol, measured in rows.items()
        for row in measured
    ]
    with write_whole(table) as part:
        pd.DataFrame(flat).to_csv(part, index=False, float_format="%.6f")
    pictures = {
        folder / "average_precision.svg": plot_rows(
            [*rows["prequential"], *rows["published_only"]]
        ),
        folder / "folds.svg": plot_folds(rows["prequential"]),
    }
    for path, picture in pictures.items():
        with write_whole(path) as part:
            part.write_text(picture, encoding="utf-8")
    return [str(path) for path in (document, table, *pictures)]


def plot_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Draw each row's mean average precision as a point, and the published one as a tick."""
    ordered = sorted(rows, key=lambda row: float(_read_best(row)))

    def draw(axes: Axes) -> None:
        for place, row in enumerate(ordered):
            measured, known = row.get("average_precision"), row["average_precision_published"]
            if measured is not None:
                axes.plot([measured], [place], "o", color=OURS)
                axes.annotate(f"   {measured:.3f}", (measured, place), va="center", fontsize=8)
            if known is not None:
                axes.plot([known], [place], "|", color="black", markersize=14)
        axes.set_yticks(range(len(ordered)), [row["name"] for row in ordered], fontsize=8)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="average precision: measured here (point), published (tick)")
        axes.margins(x=0.12)

    return render_figure(draw, height=1.0 + 0.26 * len(ordered))


def plot_folds(rows: Iterable[Mapping[str, Any]]) -> str:
    """Draw average precision test week by test week, for the settings chosen here."""

    def draw(axes: Axes) -> None:
        for row in rows:
            if row.get("is_chosen_here"):
                weeks = row["average_precision_folds"][::-1]
                places = [str(place + 1) for place in range(len(weeks))]
                axes.plot(places, weeks, marker="o", label=row["name"])
        axes.set(xlabel="test week", ylabel="average precision")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)

    return render_figure(draw)


def list_published_only() -> list[dict[str, Any]]:
    """List the published prequential rows that are not run again here."""
    names = list(PREQUENTIAL)[list(PREQUENTIAL).index("balanced bagging") :]
    return [
        {"name": name}
        | {f"{metric}_published": getattr(PREQUENTIAL[name], metric) for metric in METRICS}
        for name in names
    ]


def _read_best(row: Mapping[str, Any]) -> float:
    value = row.get("average_precision", row["average_precision_published"])
    return float(value)


def _compare(row: Mapping[str, Any], metric: str) -> str:
    measured, known = row.get(metric), row.get(f"{metric}_published")
    if measured is None:
        return f"({known:.3f})"
    if known is None:
        return f"{measured:.3f}"
    difference = round(measured - known, 3) + 0.0  # no "-0.000"
    return f"{measured:.3f} ({known:.3f}, {difference:+.3f})"
