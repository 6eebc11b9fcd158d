"""A load run's summary and pictures become one page: no script, no address outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from configs.files import write_whole
from configs.terminal import format_name, format_value

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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": format_value, "words": format_name}
    html = environment.get_template("load_page.html.j2").render(
        summary=summary,
        facts={
            key: value
            for key, value in summary.items()
            if key not in (*APART, "title", "valid", "interrupted")
        },
        figures={name: (_own_ids(name, svg), CAPTIONS[name]) for name, svg in figures.items()},
    )
    with write_whole(path) as part:
        part.write_text(html, encoding="utf-8")


def _own_ids(name: str, svg: str) -> Markup:
    """Cut a picture's prolog, and make its ids its own among several on one page."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{CAPTIONS[name]}"', 1))
