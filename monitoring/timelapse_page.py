"""A time-lapse's result becomes one page that is stepped day by day, with all it needs inside.

The page holds one script of its own, which reads numbers and reasons from a JSON block and sets
them as text; nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from configs.files import write_whole
from configs.pages import embed_picture, open_templates
from configs.terminal import format_name
from monitoring.timelapse_pictures import COLOURS
from monitoring.timelapse_policies import OURS
from monitoring.timelapse_result import (
    SMOOTHING_DAYS,
    find_marks,
    read_average_precisions,
    smooth,
)

COLUMNS = {
    "mean_average_precision": "average precision",
    "cost_per_1000": "cost per 1,000",
    "trainings": "trainings",
    "promotions": "promoted",
    "rejections": "rejected",
    "rollbacks": "rolled back",
    "false_alarms": "false alarms",
    "days_to_detect": "days to detect",
    "days_to_recover": "days to recover",
}


def write_timelapse_page(
    path: Path, *, result: Mapping[str, Any], pictures: Mapping[str, str]
) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        result: What ``timelapse.json`` holds.
        pictures: SVG texts by world.
    """
    template = open_templates(Path(__file__).parent).get_template("timelapse_page.html.j2")
    html = template.render(
        result=result,
        columns=COLUMNS,
        ours=OURS,
        colours=COLOURS,
        pictures={
            name: embed_picture(name, svg, title=format_name(name))
            for name, svg in pictures.items()
        },
        replay=_embed(collect_replay(result["worlds"])),
    )
    with write_whole(path) as part:
        part.write_text(html, encoding="utf-8")


def collect_replay(worlds: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what the page steps through: short, since a page holds every day of every policy.

    Returns:
        By world: ``title``, ``change`` (day, or ``None``), ``num_days`` and ``policies``: by name
        ``title``, ``colour``, ``ap`` (smoothed, one per day), ``version``, ``state`` and ``note``
        (what the tick decided; one each per day) and ``marks``.
    """
    return {
        name: {
            "title": world["title"],
            "change": world["change_day"],
            "changeEnd": world["change_end_day"],
            "numDays": world["num_days"],
            "policies": {
                policy: {
                    "title": item["title"],
                    "colour": COLOURS[policy],
                    "ap": _round(read_average_precisions(item["days"])),
                    "version": [day["champion"] for day in item["days"]],
                    "state": [_say_state(day) for day in item["days"]],
                    "note": [_say_decision(day) for day in item["days"]],
                    "marks": [[mark["day"], mark["mark"]] for mark in find_marks(item["days"])],
                }
                for policy, item in world["policies"].items()
            },
        }
        for name, world in worlds.items()
    }


def _round(values: np.ndarray) -> list[float | None]:
    smoothed = smooth(values, num_days=SMOOTHING_DAYS)
    return [None if np.isnan(value) else round(float(value), 4) for value in smoothed]


def _say_state(day: Mapping[str, Any]) -> str:
    return f"{day['state']} ({day['rollout']})" if day["rollout"] else str(day["state"])


def _say_decision(day: Mapping[str, Any]) -> str:
    """Say what the tick decided, or what it moved; its first reason, cut to a line."""
    moved = [f"{step['to_state']}: {'; '.join(step['reasons'])}" for step in day["transitions"]]
    decision = day["decision"]
    said = moved[-1] if moved else f"{decision['action']}: {'; '.join(decision['reasons'])}"
    return said if len(said) <= 240 else f"{said[:237]}..."


def _embed(document: Mapping[str, Any]) -> Markup:
    """Return JSON that is safe inside a script element: no ``<`` can end it."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))
