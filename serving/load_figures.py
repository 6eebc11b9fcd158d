"""Load results become pictures: the text of an SVG each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from hdrh.histogram import HdrHistogram
from matplotlib.axes import Axes

from serving.load_ladder import Ladder
from training.plots import render_figure

OURS, GOOD, BAD, SOFT = "#1f6feb", "#23784a", "#b3402a", "#8a8f98"
MAX_NINES = 4


def plot_latency(curves: Mapping[str, HdrHistogram]) -> str:
    """Draw latency by percentile, the tail stretched as 1 / (1 - p).

    Args:
        curves: Histograms of microseconds by name.

    Returns:
        The SVG's text.
    """
    nines = np.linspace(0.0, MAX_NINES, 81)
    percentiles = [float(100.0 * (1.0 - 10.0**-nine)) for nine in nines]

    def draw(axes: Axes) -> None:
        for (name, histogram), colour in zip(curves.items(), (OURS, SOFT), strict=False):
            values = histogram.get_percentile_to_value_dict(percentiles)
            latencies = [values.get(percentile, 0) / 1e3 for percentile in percentiles]
            axes.plot(nines, latencies, label=name, color=colour)
        axes.set_xticks(range(MAX_NINES + 1), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"])
        axes.set(xlabel="share of requests answered within", ylabel="latency (ms)")
        axes.set_ylim(bottom=0)
        _name_lines(axes)

    return render_figure(draw)


def plot_throughput(ladder: Ladder) -> str:
    """Draw the answered rate against the offered one; what lies on the line was followed."""

    def draw(axes: Axes) -> None:
        highest = max(rung.rate for rung in ladder.rungs)
        axes.plot([0, highest], [0, highest], color=SOFT, linewidth=1, label="all that was offered")
        _scatter(axes, ladder, [rung.result.qps for rung in ladder.rungs])
        axes.set(xlabel="offered requests a second", ylabel="answered requests a second")
        axes.set_ylim(bottom=0)
        _name_lines(axes)

    return render_figure(draw)


def plot_rung_latency(ladder: Ladder, *, max_p99_ms: float) -> str:
    """Draw each rung's 99th percentile against its rate, and the limit."""

    def draw(axes: Axes) -> None:
        p99s = [rung.result.latencies.get_value_at_percentile(99.0) / 1e3 for rung in ladder.rungs]
        _scatter(axes, ladder, p99s)
        axes.axhline(max_p99_ms, color=SOFT, linewidth=1, linestyle="--", label="limit")
        axes.set(xlabel="offered requests a second", ylabel="p99 latency (ms)", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")  # 50, not 5 x 10^1
        axes.yaxis.set_minor_formatter("{x:g}")
        _name_lines(axes)

    return render_figure(draw)


def _name_lines(axes: Axes) -> None:
    """Say above the picture which line is which: inside, a legend would hide a part of one."""
    num_lines = len(axes.get_legend_handles_labels()[0])
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=num_lines,
        frameon=False,
        borderaxespad=0.2,
    )


def _scatter(axes: Axes, ladder: Ladder, values: Sequence[float]) -> None:
    for holds, colour, label in ((True, GOOD, "held"), (False, BAD, "did not hold")):
        points = [
            (rung.rate, value)
            for rung, value in zip(ladder.rungs, values, strict=True)
            if rung.holds == holds
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=label)


def plot_latency_over_time(series: pd.DataFrame) -> str:
    """Draw the percentiles of each interval."""

    def draw(axes: Axes) -> None:
        for column, colour in (("p50_ms", OURS), ("p99_ms", BAD)):
            axes.plot(
                series["start_seconds"],
                series[column],
                color=colour,
                label=column.removesuffix("_ms"),
            )
        axes.set(xlabel="seconds since the warm-up", ylabel="latency (ms)")
        axes.set_ylim(bottom=0)
        _name_lines(axes)

    return render_figure(draw, height=3.4)


def plot_memory(samples: Sequence[tuple[float, float]]) -> str:
    """Draw the service's memory over time."""

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*samples, strict=True), color=OURS)
        axes.set(xlabel="seconds since the warm-up", ylabel="memory (MB)")
        axes.set_ylim(bottom=0)

    return render_figure(draw, height=3.4)
