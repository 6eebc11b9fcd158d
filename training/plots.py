"""Curves of a training run become pictures: the text of an SVG each, for a page or for MLflow.

Black ink on nothing, letters left as text, one colour per model throughout. Every function takes
what ``report.json`` holds, so that a picture can always be drawn again from the data.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    "lightgbm": "#1f6feb",
    "pytorch": "#dd6b20",
    "logistic_regression": "#2f855a",
    "blend": "#805ad5",
}
LABELS = {
    "lightgbm": "LightGBM",
    "pytorch": "PyTorch network",
    "logistic_regression": "logistic regression",
    "blend": "blend of both",
    "amount_rule": "amount alone",
    "constant": "constant",
}
OTHER_COLOUR = "#8a8f98"
MAX_FEATURES = 16
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "throughline",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "legend.frameon": False,
}


def plot_precision_recall(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw precision against recall for each model and baseline.

    Args:
        curves: By name, ``recall`` and ``precision``, in [0, 1] and of equal length.

    Returns:
        The SVG's text.
    """

    def draw(axes: Axes) -> None:
        for name, curve in curves.items():
            axes.plot(curve["recall"], curve["precision"], **_line(name))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower left", bbox_to_anchor=(0.02, 0.06))

    return render_figure(draw)


def plot_calibration(curves: Mapping[str, Mapping[str, Sequence[float]]], *, model: str) -> str:
    """Draw the share of frauds against the probability given, before and after calibration.

    Args:
        curves: ``before`` and ``after``, each with ``probability`` and ``fraud_share`` per bin.
        model: The kind of model, for its colour.

    Returns:
        The SVG's text; both axes are logarithmic, since most transactions are near 0.
    """
    styles = {
        "before": {"color": OTHER_COLOUR, "linestyle": "--", "marker": "o", "markersize": 3},
        "after": {**_line(model), "marker": "o", "markersize": 4},
    }

    def draw(axes: Axes) -> None:
        axes.axline((1e-4, 1e-4), (1.0, 1.0), color="black", linewidth=0.8)
        for name, curve in curves.items():
            points = zip(curve["probability"], curve["fraud_share"], strict=True)
            shown = [point for point in points if min(point) > 0]  # 0 has no place on a log axis
            x, y = zip(*shown, strict=True) if shown else ((), ())
            axes.plot(x, y, **{**styles[name], "label": f"{name} calibration"})
        axes.set(xscale="log", yscale="log", xlabel="mean probability", ylabel="share of frauds")
        axes.legend(loc="upper left")

    return render_figure(draw)


def plot_costs(costs: Mapping[str, Any]) -> str:
    """Draw the cost per day against each threshold, with the chosen pair and no model at all.

    Args:
        costs: From ``training.operating_point.trace_costs``.

    Returns:
        The SVG's text.
    """

    def draw(axes: Axes) -> None:
        chosen = costs["chosen"]
        for moved, colour in (("review", "#1f6feb"), ("decline", "#dd6b20")):
            label = f"moving the {moved} threshold"
            axes.plot(costs["thresholds"], costs[f"moving_{moved}"], color=colour, label=label)
            axes.scatter([chosen[moved]], [chosen["cost_per_day"]], color=colour, zorder=3)
        axes.axhline(costs["approve_all"], color="black", linestyle="--", linewidth=0.8)
        axes.annotate("approve everything", (0.01, costs["approve_all"]), va="bottom")
        highest = 1.6 * max(costs["approve_all"], chosen["cost_per_day"])
        axes.set(xscale="logit", xlabel="threshold", ylabel="cost per day", ylim=(0, highest))
        axes.xaxis.set_minor_formatter("")
        axes.legend(loc="upper right")

    return render_figure(draw)


def plot_training_curves(losses: Mapping[str, Any]) -> str:
    """Draw the network's log loss on seen and held-out rows, and the epoch that was kept.

    Args:
        losses: ``train``, ``valid`` (nats per row, one per epoch) and ``best_epoch`` (from 0).

    Returns:
        The SVG's text.
    """

    def draw(axes: Axes) -> None:
        epochs = range(1, len(losses["train"]) + 1)
        axes.plot(epochs, losses["train"], color=OTHER_COLOUR, label="training rows")
        axes.plot(epochs, losses["valid"], color=COLOURS["pytorch"], label="held-out rows")
        best = losses["best_epoch"] + 1
        axes.axvline(best, color="black", linestyle="--", linewidth=0.8, label="kept")
        axes.set(xlabel="epoch", ylabel="log loss")
        axes.legend(loc="upper right")

    return render_figure(draw)


def plot_feature_importance(shares: Mapping[str, float]) -> str:
    """Draw the most important features' shares, largest on top.

    Args:
        shares: By feature; at most ``MAX_FEATURES`` are shown.

    Returns:
        The SVG's text.
    """
    largest = sorted(shares.items(), key=lambda item: item[1])[-MAX_FEATURES:]

    def draw(axes: Axes) -> None:
        axes.barh([name for name, _ in largest], [share for _, share in largest], color="#1f6feb")
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="share of importance")

    return render_figure(draw, height=1.0 + 0.26 * len(largest))


def _line(name: str) -> dict[str, Any]:
    style = {"label": LABELS.get(name, name), "color": COLOURS.get(name, OTHER_COLOUR)}
    return style if name in COLOURS else {**style, "linestyle": "--" if name == "constant" else ":"}


def render_figure(draw: Callable[[Axes], None], *, height: float = 4.2) -> str:
    """Draw on one pair of axes, ``height`` inches high; return the SVG's text."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, height), layout="constrained")
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
