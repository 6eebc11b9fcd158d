"""The handbook benchmark's printed tables become the Markdown tables of docs/handbook.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from configs.terminal import format_name, format_value

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
        yield from _build_table(result[key])
    environment = result["environment"]
    yield ""
    yield f"Run on {environment['date']}, {environment['cores']} cores, {environment['cpu']}."


def _build_table(table: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    yield " | ".join(("| ", *map(format_name, columns))) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for name, row in table.items():
        cells = (format_value(row[column]) if column in row else "" for column in columns)
        yield " | ".join((f"| {format_name(name)}", *cells)) + " |"
