"""What ``throughline bench`` wrote becomes the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.files import read_json
from configs.terminal import format_name
from monitoring.markdown_table import build_table, describe_run

TITLES = {
    "windows": "Windows from history",
    "history": "Historical join through Feast",
    "stream": "The stream",
    "device": "CPU and GPU",
}
"""Names of the benches, each the name of its file too."""
SERVING_TITLES = {
    "serving": "The service beside others",
    "serving-steps": "The steps to it",
    "pipeline": "The whole path",
}

LOOP_TITLES = {"alarms": "False alarms in worlds that do not change"}


def build_benchmark_tables(folder: Path, *, titles: Mapping[str, str] = TITLES) -> Iterator[str]:
    """Yield the lines of every bench that was run.

    Args:
        folder: Holds ``<bench>.json`` as written by ``throughline bench <bench> --json``.
        titles: Benches by the name of their file.
    """
    for name, title in titles.items():
        file = folder / f"{name}.json"
        if file.is_file():
            command = name.replace("-steps", " --ablate")
            yield from ("", f"## {title}", "", f"`throughline bench {command}`", "")
            yield from build_bench_tables(read_json(file))


def build_bench_tables(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one bench's result: its rows, its targets, the machine."""
    yield from build_table({str(row["name"]): _drop(row, "name") for row in result["rows"]})
    yield ""
    if result.get("stages_us"):
        yield from build_table({"µs of one request": result["stages_us"]})
        yield ""
    if result["targets"]:
        yield from build_table({_name(target): _judge(target) for target in result["targets"]})
        yield ""
    yield describe_run(result["environment"])


def build_timelapse_tables(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a time-lapse: a table per world, the targets, what speaks against ours."""
    for world in dict.fromkeys(row["world"] for row in result["rows"]):
        yield from ("", f"### {format_name(world).capitalize()}", "")
        rows = {str(row["policy"]): row for row in result["rows"] if row["world"] == world}
        hidden = ("name", "world", "policy")
        yield from build_table(
            {name: {k: v for k, v in row.items() if k not in hidden} for name, row in rows.items()}
        )
        yield from ("", f"![Average precision by day, {world}](pictures/{world}.svg)")
    yield ""
    yield from build_table(
        {
            str(target["name"]): {
                "value": target["value"],
                "target": f"{'≥' if target['sense'] == 'at_least' else '≤'} {target['target']:,g}",
                "met": target["met"],
            }
            for target in result["targets"]
        }
    )
    yield ""
    yield from (f"- {note}" for note in result["notes"])
    yield ""
    yield f"{result['served_days']} served days, {result['seconds']:.0f} s in all. " + describe_run(
        result["environment"]
    )


def _name(target: Mapping[str, Any]) -> str:
    return str(target["name"]).replace("_", " ")


def _judge(target: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "value": target["value"],
        "target": f"{'≥' if 'at_least' in target else '≤'} {target['target']:,g}",
        "met": target["met"],
    }


def _drop(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Leave out what has a column already, and what is nested: that is for scripts."""
    return {
        name: value for name, value in row.items() if name != key and not isinstance(value, Mapping)
    }
