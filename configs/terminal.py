"""A stage's result (nested JSON) becomes lines and small tables a person reads on a terminal.

The JSON file of ``--json`` holds everything; the terminal leaves out what is nested deeper than a
table shows. Values are printed as they are: text of a user's file is never read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import hexdigits
from textwrap import wrap
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

MAX_LISTED = 12
LONGEST_ITEM = 60
SHA256_LENGTH = 64
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")
MAX_COLUMNS = 4
MIN_LABEL = 16
"""Narrowest column of names; where a table still does not fit, its last columns are left out."""
INTERVAL = "_interval"
LAST_KEYS = ("wrote", "next")
NAMES = {
    "lightgbm": "LightGBM",
    "pytorch": "PyTorch network",
    "roc_auc": "ROC AUC",
    "card_precision_at_100": "card precision@100",
    "recall_at_low_fpr": "recall at 0.1 % FPR",
    "expected_calibration_error": "calibration error",
    "brier_score": "Brier score",
    "qps": "requests/s",
    "cpu": "CPU",
}


def print_result(result: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print a stage's result, ending with what it wrote and what to run next.

    Args:
        result: The stage's JSON-able result. ``wrote`` (list of paths) and ``next`` (a command)
            close the output; a mapping of mappings becomes a table with one column per key.
        console: Where to print; standard output when ``None``.
    """
    console = console or Console()
    facts = {key: value for key, value in result.items() if key not in LAST_KEYS}
    for part in _render(facts, width=console.width):
        console.print(part)
    for path in result.get("wrote", ()):
        console.print(Text(f"wrote  {path}"), soft_wrap=True)
    if result.get("next"):
        console.print(Text(f"next:  {result['next']}"), soft_wrap=True)


def format_value(value: object) -> str:
    """Format one value: thousands apart, four significant digits, times to the minute, lists short.

    >>> format_value(1754155), format_value(0.69412345), format_value([0.61, 0.7012])
    ('1,754,155', '0.6941', '0.61 to 0.701')
    >>> format_value(["a", "b"]), format_value([]), format_value(None), format_value(True)
    ('a, b', 'none', 'none', 'yes')
    """
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case int():
            return f"{value:,}"
        case float():
            return _format_float(value)
        case [float() as low, float() as high]:
            return f"{low:.3g} to {high:.3g}"
        case list() | tuple():
            return _format_list([format_value(item) for item in value])
        case str() if ISO_TIME.match(value):
            return value[:16].replace("T", " ")
        case str() if len(value) == SHA256_LENGTH and not set(value) - set(hexdigits):
            return value[:12]
        case _:
            return str(value)


def _format_float(value: float) -> str:
    """Show four significant digits, two where the value is tiny, no fraction where it is large."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"


def format_name(key: str) -> str:
    """Turn a key of a result into words, its unit last.

    >>> format_name("average_precision"), format_name("p99_9_ms"), format_name("lightgbm")
    ('average precision', 'p99.9, ms', 'LightGBM')
    >>> format_name("label_delay_days"), format_name("every_7_days")
    ('label delay, days', 'every 7 days')
    """
    key = re.sub(r"^p(\d+)_(\d+)_", r"p\1.\2_", key)
    key = re.sub(r"_gb$", ", GB", key)
    key = re.sub(r"_(ms|us|seconds|(?<!\d_)(?<!num_)days)$", r", \1", key)
    return NAMES.get(key, key.replace("_", " "))


def _format_list(items: list[str]) -> str:
    """Join items with commas, past ``MAX_LISTED`` saying how many more; sentences get lines."""
    if any(len(item) > LONGEST_ITEM for item in items):
        return "\n".join(items)
    if len(items) > MAX_LISTED:
        items = [*items[:MAX_LISTED], f"and {len(items) - MAX_LISTED} more"]
    return ", ".join(items) or "none"


def _render(facts: Mapping[str, Any], *, width: int) -> Iterator[RenderableType]:
    """Yield the plain facts as one aligned list, then a table per mapping of mappings."""
    lines = Table.grid("", Column(overflow="fold"), padding=(0, 2))
    for key, value in facts.items():
        if isinstance(value, Mapping) and not _is_table(value):
            lines.add_row(Text(format_name(key)), Text(_format_mapping(value)))
        elif _fits_a_cell(value):
            lines.add_row(Text(format_name(key)), Text(format_value(value)))
    if lines.row_count:
        yield lines
    for key, value in facts.items():
        if _is_table(value):
            yield _build_table(key, value, width=width)


def _format_mapping(facts: Mapping[str, Any], *, is_inner: bool = False) -> str:
    """Put a small mapping on one line, as ``requests: 2,000; errors: 0``; deeper ones stay out."""
    parts = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            if not is_inner and all(map(_fits_a_cell, value.values())):
                parts.append(f"{format_name(key)} ({_format_mapping(value, is_inner=True)})")
        elif _fits_a_cell(value):
            parts.append(f"{format_name(key)}: {format_value(value)}")
    return (", " if is_inner else "; ").join(parts) or "none"


def _is_table(value: object) -> bool:
    """Say whether a mapping is not empty and holds nothing but mappings."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value.values())
    )


def _fits_a_cell(value: object) -> bool:
    """Say whether a value is neither a mapping nor a list of mappings."""
    items = value if isinstance(value, list) else [value]
    return not any(isinstance(item, Mapping) for item in items)


def _build_table(title: str, groups: Mapping[str, Mapping[str, Any]], *, width: int) -> Table:
    """Lay out one column per group and one row per measure; with many groups, the other way.

    A missing value stays empty. Groups in rows leave their intervals to the JSON file.
    """
    measures = [
        measure
        for measure in dict.fromkeys(key for group in groups.values() for key in group)
        if all(_fits_a_cell(group.get(measure)) for group in groups.values())
    ]
    if len(groups) > MAX_COLUMNS:
        measures = [measure for measure in measures if not measure.endswith(INTERVAL)]
        header, rows = (
            measures,
            {
                name: [group.get(measure, "") for measure in measures]
                for name, group in groups.items()
            },
        )
    else:
        header, rows = (
            list(groups),
            {
                measure: [group.get(measure, "") for group in groups.values()]
                for measure in measures
            },
        )
    table = _lay_out(title, header, rows)
    if _measure(table) > width:
        table = _lay_out(title, header, rows, is_stacked=True)
    while _measure(table) > width and len(header) > 1:
        header, rows = header[:-1], {name: values[:-1] for name, values in rows.items()}
        table = _lay_out(title, header, rows, is_stacked=True)
        table.caption = Text("too narrow for more: see --json")
    return table


def _measure(table: Table) -> int:
    """Count the columns of a terminal that a table needs: cells, padding and what divides them."""
    return sum((column.min_width or 0) + 3 for column in table.columns) + 1


def _stack_numbers(value: object) -> str:
    """Format a value, each number of a list on its own line."""
    text = format_value(value)
    is_listed = isinstance(value, list) and all(isinstance(item, float) for item in value)
    return re.sub(r"( to|,) ", r"\1\n", text) if is_listed else text


def _lay_out(
    title: str, header: list[str], rows: Mapping[str, list[Any]], *, is_stacked: bool = False
) -> Table:
    """Make a table whose numbers are never cut, however narrow the terminal is.

    Stacked, its headers have a word a line, and its intervals and other numbers one a line.
    """
    table = Table(
        title=Text(format_name(title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    labels = ["  95 % interval" if name.endswith(INTERVAL) else format_name(name) for name in rows]
    table.add_column(
        "", overflow="fold", min_width=min(MIN_LABEL, max(map(len, labels), default=0))
    )
    texts = {
        name: [_stack_numbers(value) if is_stacked else format_value(value) for value in values]
        for name, values in rows.items()
    }
    for place, name in enumerate(header):
        cells = [line for values in texts.values() for line in values[place].split("\n")]
        words = format_name(name).split() if is_stacked else [format_name(name)]
        width = max(map(len, [*words, *cells]), default=1)
        header_lines = "\n".join(wrap(format_name(name), width))
        table.add_column(Text(header_lines), justify="right", min_width=width, no_wrap=True)
    for label, values in zip(labels, texts.values(), strict=True):
        table.add_row(Text(label), *map(Text, values))
    return table
