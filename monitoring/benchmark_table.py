"""What ``throughline bench`` wrote becomes the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.files import read_json
from monitoring.markdown_table import build_table, describe_run

TITLES = {
    "windows": "Windows from history",
    "history": "Historical join through Feast",
    "stream": "The stream",
}
"""Names of the benches, each the name of its file too."""


def build_benchmark_tables(folder: Path) -> Iterator[str]:
    """Yield the lines of every bench that was run.

    Args:
        folder: Holds ``<bench>.json`` as written by ``throughline bench <bench> --json``.
    """
    for name, title in TITLES.items():
        file = folder / f"{name}.json"
        if file.is_file():
            yield from ("", f"## {title}", "", f"`throughline bench {name}`", "")
            yield from build_bench_tables(read_json(file))


def build_bench_tables(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one bench's result: its rows, its targets, the machine."""
    yield from build_table({str(row["name"]): _drop(row, "name") for row in result["rows"]})
    yield ""
    yield from build_table(
        {
            str(target["name"]).replace("_", " "): {
                "value": target["value"],
                "target": f"{'≥' if 'at_least' in target else '≤'} {target['target']:,g}",
                "met": target["met"],
            }
            for target in result["targets"]
        }
    )
    yield ""
    yield describe_run(result["environment"])


def _drop(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
