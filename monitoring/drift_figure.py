"""Drift verdicts of several reports become one picture: how far from its threshold each feature is.

The result is the text of an SVG: black ink on nothing, letters left as text, no script and no
outside address, so that a page can hold it and a reader can copy from it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from training.plots import STYLE

LAST_COLOUR, EARLIER_COLOUR = "#dd6b20", "#8a8f98"
MAX_FEATURES = 16
MIN_RATIO = 0.02  # where a distance of zero stands on the logarithmic axis


def plot_drift(reports: Sequence[Mapping[str, Any]]) -> str:
    """Draw how far each feature was from its reference in each report, as a share of its threshold.

    Args:
        reports: In time order; each has ``name`` (a few words, as "after the change") and
            ``columns``, a mapping from feature to ``value`` (>= 0) and ``threshold`` (> 0).

    Returns:
        The SVG's text; the features furthest from their reference in any report, at most
        ``MAX_FEATURES``, the furthest on top. The last report stands out.

    Raises:
        ValueError: If no report compared any feature.
    """
    ratios = [
        {name: c["value"] / c["threshold"] for name, c in report["columns"].items()}
        for report in reports
    ]
    furthest = {
        name: max(other.get(name, 0.0) for other in ratios) for ratio in ratios for name in ratio
    }
    if not furthest:
        raise ValueError("no drift report compares any feature")
    names = sorted(furthest, key=lambda name: furthest[name])[-MAX_FEATURES:]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 1.0 + 0.26 * len(names)), layout="constrained")
        axes = figure.subplots()
        for place, (report, ratio) in enumerate(zip(reports, ratios, strict=True), start=1):
            _draw_report(axes, names, ratio, report["name"], is_last=place == len(reports))
        _label(axes, names)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _draw_report(
    axes: Axes, names: list[str], ratio: Mapping[str, float], title: str, *, is_last: bool
) -> None:
    """Draw one dot per feature the report compared."""
    shown = [name for name in names if name in ratio]
    axes.scatter(
        [max(ratio[name], MIN_RATIO) for name in shown],
        [names.index(name) for name in shown],
        color=LAST_COLOUR if is_last else EARLIER_COLOUR,
        s=46 if is_last else 26,
        zorder=3 if is_last else 2,
        label=title,
    )


def _label(axes: Axes, names: list[str]) -> None:
    """Name the rows and mark the threshold."""
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel("distance from the training reference / threshold (drift: 1 and above)")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
