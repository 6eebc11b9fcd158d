"""A load run's summary and pictures become one page: no script, no address outside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.files import write_whole
from configs.pages import embed_picture, open_templates

CAPTIONS = {
    "latency": "Latency by percentile: from when a request was due, and from when it really left.",
    "throughput": "Answered against offered rate; below the line the service did not follow.",
    "rung_latency": "The 99th percentile at each rate.",
    "over_time": "Latency by interval of the time requests were due.",
    "memory": "Memory of the service's processes.",
}
APART = ("rungs", "environment", "why", "caveat", "wrote", "next")
"""What the page does not show among the facts."""


def write_load_page(path: Path, *, summary: Mapping[str, Any], figures: Mapping[str, str]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        summary: What ``load.json`` holds: ``title``, ``valid``, ``why``, ``interrupted``,
            ``environment``, ``rungs`` for a ladder, and any further facts.
        figures: SVG texts by name, shown in this order; names as in ``CAPTIONS``.
    """
    template = open_templates(Path(__file__).parent).get_template("load_page.html.j2")
    html = template.render(
        summary=summary,
        facts={
            key: value
            for key, value in summary.items()
            if key not in (*APART, "title", "valid", "interrupted")
        },
        figures={
            name: (embed_picture(name, svg, title=CAPTIONS[name]), CAPTIONS[name])
            for name, svg in figures.items()
        },
    )
    with write_whole(path) as part:
        part.write_text(html, encoding="utf-8")
