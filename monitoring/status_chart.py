"""Realised average precision over time becomes a small SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 22, 26
NUM_TICKS = 4


def draw_history(points: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw average precision with its interval, what was expected, and changes of the champion.

    Args:
        points: In time order: ``time`` (ISO), ``champion``, and ``average_precision``, ``low``,
            ``high`` and ``expected``, each ``None`` where it is not known.

    Returns:
        The SVG, its colours those of the page's classes ``band``, ``line``, ``expected``, ``mark``
        and ``axis``; ``None`` with fewer than two points to draw.
    """
    known = [point for point in points if point["average_precision"] is not None]
    if len(known) < 2:
        return None
    scale = _Scale(points, known)
    parts = [*_draw_axes(scale), *_draw_changes(scale, points), *_draw_series(scale, known)]
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Realised average precision '
        f'over time">{"".join(parts)}</svg>'
    )


class _Scale:
    """Times and average precisions become places in the picture."""

    def __init__(
        self, points: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]
    ) -> None:
        times = [pd.Timestamp(point["time"]) for point in points]
        self.start, self.end = times[0], times[-1]
        heights = [
            point[name]
            for point in known
            for name in ("average_precision", "low", "high", "expected")
            if point[name] is not None
        ]
        margin = max(0.05 * (max(heights) - min(heights)), 0.01)
        self.low, self.high = max(min(heights) - margin, 0.0), min(max(heights) + margin, 1.0)

    def x(self, time: str) -> float:
        share = (pd.Timestamp(time) - self.start) / (self.end - self.start)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, height: float) -> float:
        share = (height - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - float(share) * (HEIGHT - TOP - BOTTOM), 1)

    def place(self, point: Mapping[str, Any], name: str) -> str:
        return f"{self.x(point['time'])},{self.y(point[name])}"


def _draw_axes(scale: _Scale) -> Iterator[str]:
    for tick in range(NUM_TICKS):
        height = scale.low + tick * (scale.high - scale.low) / (NUM_TICKS - 1)
        y = scale.y(height)
        yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{height:.2f}</text>'
    for time, anchor in ((scale.start, "start"), (scale.end, "end")):
        x = LEFT if anchor == "start" else WIDTH - RIGHT
        yield f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">{time:%Y-%m-%d}</text>'


def _draw_changes(scale: _Scale, points: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Mark where another version began to answer."""
    for before, after in pairwise(points):
        if before["champion"] != after["champion"]:
            x = scale.x(after["time"])
            yield f'<line class="mark" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            version = escape(after["champion"])
            yield f'<text x="{x}" y="{TOP - 8}" text-anchor="middle">v{version}</text>'


def _draw_series(scale: _Scale, known: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    with_interval = [point for point in known if point["low"] is not None]
    band = [scale.place(point, "low") for point in with_interval]
    band += [scale.place(point, "high") for point in reversed(with_interval)]
    yield f'<polygon class="band" points="{" ".join(band)}"/>'
    expected = [scale.place(point, "expected") for point in known if point["expected"] is not None]
    yield f'<polyline class="expected" points="{" ".join(expected)}"/>'
    line = [scale.place(point, "average_precision") for point in known]
    yield f'<polyline class="line" points="{" ".join(line)}"/>'
    for point, place in zip(known, line, strict=True):
        x, y = place.split(",")
        said = f"{pd.Timestamp(point['time']):%Y-%m-%d}: {point['average_precision']:.3f}"
        yield f'<circle class="dot" cx="{x}" cy="{y}" r="2.6"><title>{said}</title></circle>'
