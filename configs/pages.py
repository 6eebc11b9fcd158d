"""A stage's templates and pictures become pages of one file each.

Every value and every name is escaped; a picture brings no script, and its ids are its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from configs.terminal import format_name, format_value


def open_templates(folder: Path) -> Environment:
    """Open a folder's templates: escaping always on, and an error for every name they mistype.

    Args:
        folder: Where the ``.j2`` files are.

    Returns:
        Jinja's environment; the filters ``show`` and ``words`` are those of the terminal.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": format_value, "words": format_name}
    return environment


def embed_picture(name: str, svg: str, *, title: str) -> Markup:
    """Cut a picture's prolog and metadata, and make its ids its own among many on one page.

    Args:
        name: A word; it becomes part of the ids.
        svg: The picture's text.
        title: What it shows, for who hears the page.

    Raises:
        ValueError: If it is not one SVG, or holds a script.
    """
    assert re.fullmatch(r"\w+", name), f"a figure's name becomes part of its ids: '{name}'"
    start, end = svg.find("<svg"), svg.rfind("</svg>")
    if start < 0 or end < 0:
        raise ValueError(f"figure '{name}' is not an SVG")
    if re.search(r"<script|<foreignObject|\son\w+\s*=|javascript:", svg, re.IGNORECASE):
        raise ValueError(f"figure '{name}' holds a script; a page that is shown to others must not")
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[start : end + 6], flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))
