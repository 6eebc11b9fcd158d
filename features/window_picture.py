"""The rows of ``throughline bench windows`` become a picture: their rates by engine and size."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = {
    "throughline": "#1f6feb",
    "throughline out of core": "#2f855a",
    "duckdb": "#dd6b20",
    "polars": "#805ad5",
    "pandas": "#8a8f98",
}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "throughline", "legend.frameon": False}


def plot_rows_per_second(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw rows per second against rows, a line per engine, both axes logarithmic.

    Args:
        rows: As ``features.bench_windows.run_bench_windows`` returns them; what was not measured
            is left out.

    Returns:
        The SVG's text.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for engine, colour in COLOURS.items():
            points = [
                (row["measured"]["num_rows"], row["rows_per_second"])
                for row in rows
                if row["measured"]["engine"] == engine and "rows_per_second" in row
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=engine)
        axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="rows per second, 12 features")
        axes.grid(alpha=0.2)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
