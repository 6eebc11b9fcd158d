"""One world's days become one picture: average precision over time, a line per policy, and marks.

The result is the text of an SVG: letters left as text, no script, no outside address.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitoring.timelapse_policies import OURS
from monitoring.timelapse_result import (
    SMOOTHING_DAYS,
    find_marks,
    read_average_precisions,
    smooth,
)
from training.plots import STYLE

COLOURS = {
    "never": "#8a8f98",
    "every_7_days": "#2f855a",
    "every_28_days": "#b7791f",
    "drift_only": "#805ad5",
    "matured_only": "#0c8599",
    "ours": "#dd6b20",
}
MARKERS = {"trained": "|", "promoted": "^", "rejected": "x", "rolled back": "v", "failed": "*"}


def plot_world(world: Mapping[str, Any]) -> str:
    """Draw a world's policies; below them, when each trained and what became of it.

    Args:
        world: ``policies`` (name to ``title`` and ``days``), ``change_day`` and ``change_end_day``,
            each or both ``None``.

    Returns:
        The SVG's text.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        lines, marks = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
        for axes in (lines, marks):
            _shade_change(axes, world)
        _draw_lines(lines, world["policies"])
        _draw_marks(marks, world["policies"])
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _shade_change(axes: Axes, world: Mapping[str, Any]) -> None:
    if world["change_day"] is None:
        return
    axes.axvline(world["change_day"], color="black", linewidth=0.8, linestyle="--")
    if world["change_end_day"] is not None:
        axes.axvspan(world["change_day"], world["change_end_day"], color="#8a8f98", alpha=0.15)


def _draw_lines(axes: Axes, policies: Mapping[str, Any]) -> None:
    for name, policy in policies.items():
        values = smooth(read_average_precisions(policy["days"]), num_days=SMOOTHING_DAYS)
        is_ours = name == OURS
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            color=COLOURS[name],
            linewidth=2.2 if is_ours else 1.2,
            zorder=3 if is_ours else 2,
            label=policy["title"],
        )
    axes.set_ylabel(f"average precision (oracle, {SMOOTHING_DAYS} days)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, fontsize="small")


def _draw_marks(axes: Axes, policies: Mapping[str, Any]) -> None:
    """Draw a row per policy, the first on top."""
    names = list(policies)[::-1]
    seen: set[str] = set()
    for row, name in enumerate(names):
        for mark in find_marks(policies[name]["days"]):
            kind = mark["mark"]
            label = None if kind in seen else kind
            seen.add(kind)
            axes.scatter(
                [mark["day"]], [row], marker=MARKERS[kind], color=COLOURS[name], s=34, label=label
            )
    axes.set_yticks(range(len(names)), [policies[name]["title"] for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("day")
    if seen:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=len(seen),
            fontsize="small",
            labelcolor="#5b6474",
        )
