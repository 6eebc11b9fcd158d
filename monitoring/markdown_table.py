"""Named rows become a Markdown table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from configs.terminal import format_name, format_value


def build_table(table: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield a table's lines: a row per name, a column per key that any row has.

    >>> list(build_table({"ours": {"seconds": 1.5}, "theirs": {}}))
    ['|  | seconds |', '|---|---|', '| ours | 1.5 |', '| theirs |  |']
    """
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    yield " | ".join(("| ", *map(format_name, columns))) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for name, row in table.items():
        cells = (format_value(row[column]) if column in row else "" for column in columns)
        yield " | ".join((f"| {format_name(name)}", *cells)) + " |"


def describe_run(environment: Mapping[str, Any]) -> str:
    """Name the day and the machine of a run."""
    return f"Run on {environment['date']}, {environment['cores']} cores, {environment['cpu']}."
