"""The status becomes one page: no script, nothing from elsewhere, readable on a phone at night."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.files import write_whole
from monitoring.report import make_environment
from monitoring.status_chart import draw_history


def write_status_page(path: Path, *, status: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        status: From ``monitoring.status.collect_status``.
    """
    template = make_environment().get_template("status_page.html.j2")
    html = template.render(status=status, chart=draw_history(status["history"]))
    with write_whole(path) as part:
        part.write_text(html, encoding="utf-8")
