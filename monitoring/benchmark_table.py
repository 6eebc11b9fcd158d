"""What ``throughline bench`` wrote becomes the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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

SOAK_NAMES = {"memory_first_mb": "memory first, MB", "memory_last_mb": "memory last, MB"}
SOAK_PICTURES = {
    "soak.svg": "Latency over a soak",
    "soak-memory.svg": "Memory of the service over a soak",
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


def build_soak_tables(result: Mapping[str, Any], *, pictures: Collection[str]) -> Iterator[str]:
    """Yield the lines of a soak: its halves, what grew, whether to believe it.

    Args:
        result: As written by ``throughline fraud load --soak SECONDS --json``.
        pictures: Names of those that lie in the documents' folder.
    """
    rate, seconds = result["offered_qps"], result["asked_seconds"]
    command = f"throughline fraud load --rate {rate:.9g} --soak {seconds:.9g}"
    yield from ("", "### A soak", "", f"`{command}`", "")
    whole = {key: result[key] for key in ("seconds", "qps", "p50_ms", "p99_ms", "errors")}
    rows = {**result["halves"], "the whole": whole}
    yield from build_table(
        {name: {SOAK_NAMES.get(k, k): v for k, v in row.items()} for name, row in rows.items()}
    )
    yield ""
    yield from build_table(
        {
            name: _describe_trend(result[key], unit)
            for key, name, unit in (("p99", "p99, ms", "ms"), ("memory", "memory, MB", "mb"))
            if key in result
        }
    )
    yield ""
    for name, text in SOAK_PICTURES.items():
        if name in pictures:
            yield from (f"![{text}](pictures/{name})", "")
    shed, degraded = f"{result['shed']:,} shed", f"{result['degraded']:,} degraded"
    doubts = "".join(f" **Not valid**: {why}." for why in result["why"])
    ended = " **Ended early.**" if result["interrupted"] else ""
    yield f"{result['requests']:,} requests, {shed}, {degraded}.{ended}{doubts} " + describe_run(
        result["environment"]
    )


def _describe_trend(trend: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Show a slope with its interval; both are missing where the soak was too short."""
    between = trend[f"slope_{unit}_per_hour_interval"]
    return {
        "slope per hour": trend[f"slope_{unit}_per_hour"],
        "95 % interval": "none" if between is None else f"{between[0]:,.4g} to {between[1]:,.4g}",
        "verdict": trend["verdict"],
    }


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
