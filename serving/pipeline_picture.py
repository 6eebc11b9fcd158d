"""What ``throughline bench pipeline`` measured becomes a picture: freshness over time."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from serving.serving_pictures import STYLE

LINES = {"p50": (50, "#1f6feb"), "p99": (99, "#dd6b20"), "max": (100, "#8a8f98")}
NUM_INTERVALS = 40


def plot_freshness(scored: np.ndarray, freshness: np.ndarray) -> str:
    """Draw how long transactions took to be readable, against when they were scored.

    Args:
        scored: Seconds since the load began. Shape ``(transactions,)``.
        freshness: Seconds, in the same order.

    Returns:
        The SVG's text; without lines if there is no transaction.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for label, (percentile, colour) in LINES.items():
            times, values = _summarise(scored, freshness, percentile=percentile)
            axes.plot(times, values, color=colour, label=label)
        axes.set(xlabel="seconds of load", ylabel="ms from decision to readable")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _summarise(
    scored: np.ndarray, freshness: np.ndarray, *, percentile: float
) -> tuple[list[float], list[float]]:
    """Return the middle of each interval that has transactions, and their milliseconds."""
    if not scored.size:
        return [], []
    edges = np.linspace(scored.min(), scored.max(), NUM_INTERVALS + 1)
    interval = np.clip(np.searchsorted(edges, scored, side="right") - 1, 0, NUM_INTERVALS - 1)
    present = np.unique(interval)
    middles = (edges[:-1] + edges[1:]) / 2
    values = [float(np.percentile(freshness[interval == i], percentile)) * 1e3 for i in present]
    return middles[present].tolist(), values
