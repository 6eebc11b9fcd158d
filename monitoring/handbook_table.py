"""The handbook benchmark's printed tables become the Markdown tables of docs/handbook.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monitoring.markdown_table import build_table, describe_run

TITLES = {
    "single_split": "Single split",
    "prequential": "Prequential, mean of the test weeks",
    "published": "Prequential, published and not run again here",
    "settings": "Chosen on the validation weeks",
    "ablations": "Mistakes made on purpose",
    "held_to": "Held to",
    "counts": "Counts",
}


def build_handbook_tables(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables, and of what they were run on.

    Args:
        result: What ``throughline fraud handbook`` wrote to ``handbook.json``.
    """
    for key, title in TITLES.items():
        yield from ("", f"### {title}", "")
        yield from build_table(result[key])
    yield ""
    yield f"{describe_run(result['environment'])} It took {result['seconds_total']:.0f} s."
