"""What ``throughline bench device`` measured becomes a picture: a batch's time by its size."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.figure import Figure

LABELS = {
    "lightgbm": ("LightGBM, CPU", "#2f855a"),
    "onnx_runtime": ("ONNX Runtime, CPU", "#dd6b20"),
    "torch_cpu": ("torch, CPU", "#8a8f98"),
    "torch_cuda": ("torch, CUDA", "#1f6feb"),
}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "throughline", "legend.frameon": False}


def plot_batch_times(
    times: Mapping[str, Mapping[int, float]], *, crossover_rows: int | None
) -> str:
    """Draw microseconds per batch against its rows, a line per engine, both axes logarithmic.

    Args:
        times: Microseconds per batch by engine and number of rows; an engine that was not
            measured has no line.
        crossover_rows: Where the GPU first wins, marked; ``None`` for no mark.

    Returns:
        The SVG's text.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for engine, (label, colour) in LABELS.items():
            if engine in times:
                sizes, taken = zip(*times[engine].items(), strict=True)
                axes.plot(sizes, taken, marker="o", color=colour, label=label)
        if crossover_rows is not None:
            axes.axvline(crossover_rows, color="#8a8f98", linestyle="--", linewidth=1)
            axes.annotate(
                f"GPU wins from {crossover_rows:,}", (crossover_rows, axes.get_ylim()[1]), va="top"
            )
        axes.set(xscale="log", yscale="log", xlabel="rows in a batch", ylabel="µs per batch")
        axes.grid(alpha=0.2)
        axes.legend(loc="upper left")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
