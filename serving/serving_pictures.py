"""What ``throughline bench serving`` measured becomes pictures: services, and stages of ours."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serving.peers import OURS

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "throughline"}
OUR_COLOUR, OTHER_COLOUR = "#1f6feb", "#8a8f98"


def plot_peers(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw requests a second, a bar per service, on a logarithmic axis.

    Args:
        rows: As ``serving.bench_serving.run_bench_serving`` returns them; a service that was not
            measured has no bar.

    Returns:
        The SVG's text.
    """
    measured = [row for row in rows if "qps" in row and "/s" not in row["name"]]
    colours = [OUR_COLOUR if row["name"].startswith(OURS) else OTHER_COLOUR for row in measured]
    with rc_context(STYLE):
        figure, axes = _open_figure(len(measured))
        bars = axes.barh([row["name"] for row in measured], [row["qps"] for row in measured])
        for bar, colour in zip(bars, colours, strict=True):
            bar.set_color(colour)
        axes.bar_label(bars, [f"{row['qps']:,.0f}" for row in measured], padding=3)
        axes.set(xscale="log", xlabel="requests a second, 64 connections")
        axes.margins(x=0.2)
        return _write(figure)


def plot_stages(microseconds: Mapping[str, float]) -> str:
    """Draw where the microseconds of one request go, a bar per stage.

    Args:
        microseconds: By stage, as ``serving.stage_times.parse_stage_times`` returns them.

    Returns:
        The SVG's text.
    """
    with rc_context(STYLE):
        figure, axes = _open_figure(len(microseconds))
        bars = axes.barh([*microseconds], [*microseconds.values()], color=OUR_COLOUR)
        axes.bar_label(bars, [f"{value:.1f}" for value in microseconds.values()], padding=3)
        axes.set(xlabel="µs of one request, its share of a batch")
        axes.margins(x=0.12)
        return _write(figure)


def _open_figure(num_bars: int) -> tuple[Figure, Axes]:
    """Make room for horizontal bars, the first on top."""
    figure = Figure(figsize=(7.2, 0.8 + 0.38 * max(num_bars, 1)), layout="constrained")
    axes = figure.subplots()
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _write(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
