"""A run's results become tables in the documents: no number there is typed by hand.

``python -m monitoring.results_table`` (``make docs``) writes the demo's summary into README.md and,
where they were run, the handbook benchmark into docs/handbook.md, the benches into
docs/benchmarks.md, docs/serving.md and docs/load.md, a soak into the last, the time-lapse into
docs/loop.md; it replaces what stands between two markers and nothing else, there only the sections
of what was run, and copies the pictures that the documents show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from configs.files import read_json, write_whole
from configs.terminal import format_name, format_value
from monitoring.benchmark_table import (
    LOOP_TITLES,
    SERVING_TITLES,
    SOAK_PICTURES,
    build_bench_tables,
    build_benchmark_tables,
    build_soak_tables,
    build_timelapse_tables,
)
from monitoring.handbook_table import build_handbook_tables
from monitoring.report import format_score

PICTURES = (
    *("serving.svg", "serving-stages.svg", "pipeline.svg"),
    *SOAK_PICTURES,
    *("unchanged.svg", "gradual.svg", "abrupt.svg", "broken_feed.svg"),
)
DOCUMENTS_PICTURES = Path("docs/pictures")
LOAD_FILES = ("load.json", "soak.json")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def write_results_table(readme: Path, summary: Mapping[str, Any]) -> None:
    """Replace the table between the README's markers by what the demo's ``summary.json`` says."""
    replace_marked(readme, _build_rows(summary))


def replace_marked(document: Path, lines: Iterable[str]) -> None:
    """Replace what stands between a document's markers.

    Args:
        document: A Markdown file with one ``BEGIN`` and, after it, one ``END`` marker.
        lines: What stands there from now on.

    Raises:
        ValueError: If a marker is missing, doubled or out of order.
    """
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or text.count(BEGIN) > 1 or text.count(END) > 1:
        raise ValueError(f"{document} needs the markers {BEGIN} and {END} once each, in this order")
    table = "\n".join(lines)
    with write_whole(document) as part:
        part.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def replace_sections(document: Path, lines: Iterable[str]) -> None:
    """Replace those sections between a document's markers that were run anew; others stay.

    Args:
        document: As for ``replace_marked``.
        lines: Sections, each from its heading to the next; what stands before the first heading is
            one too.
    """
    old = document.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    sections = _split_sections(old.strip("\n").split("\n"))
    sections |= _split_sections(lines)
    replace_marked(document, chain.from_iterable(sections.values()))


def _split_sections(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the lines of each section by its heading, every one with an empty line before it."""
    sections: dict[str, list[str]] = {}
    heading = ""
    for line in lines:
        if line.startswith("#"):
            heading = line
        sections.setdefault(heading, []).append(line)
    stripped = {name: "\n".join(part).strip("\n") for name, part in sections.items()}
    return {name: ["", *text.split("\n")] for name, text in stripped.items() if text}


def _build_rows(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table: what was measured, and what came out."""
    yield "| measured by `make demo` | result |"
    yield "|---|---|"
    for name, value in _read_results(summary):
        yield f"| {_escape(name)} | {_escape(value)} |"


def _read_results(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a reader asks first, in the order of the story."""
    yield (
        "transactions, share of fraud",
        f"{summary['transactions']:,}, {100 * summary['fraud_rate']:.2f} %",
    )
    for kind in ("models", "baselines"):
        for name, model in summary.get(kind, {}).items():
            is_champion = kind == "models" and name == summary["champion"]["name"]
            role = " (champion)" if is_champion else " (baseline)" if kind == "baselines" else ""
            yield f"{format_name(name)}{role}: average precision, ROC AUC", _describe(model)
    serving, drift, retrain = summary["serving"], summary["drift"], summary["retrain"]
    yield (
        "features, history against online: largest difference",
        format_value(summary["parity"]["max_abs_difference"]),
    )
    yield (
        "HTTP service, closed loop",
        f"{serving['qps']:,.0f} requests/s, p50 {serving['p50_ms']:.1f} ms, "
        f"p99 {serving['p99_ms']:.1f} ms, {serving['errors']} errors of {serving['requests']:,}",
    )
    yield "features found drifted after the world changed", str(len(drift["features"]))
    if retrain["average_precision_after"] is not None:
        yield (
            "average precision after the change: champion, retrained challenger",
            f"{format_score(retrain['average_precision_before'])}, "
            f"{format_score(retrain['average_precision_after'])} "
            f"({'promoted' if retrain['promoted'] else 'not promoted'})",
        )
    machine = _describe_machine(summary.get("environment", {})) or "one machine"
    yield "the whole story", f"{summary['seconds_total']:.0f} s on {machine}"


def _describe(model: Mapping[str, Any]) -> str:
    """Show a model's two headline metrics, with the interval of the first."""
    interval = model.get("average_precision_interval")
    between = f" ({format_score(interval)})" if interval else ""
    return f"{format_score(model['average_precision'])}{between}, {format_score(model['roc_auc'])}"


def _describe_machine(environment: Mapping[str, Any]) -> str:
    """Name the machine and the day, as far as the summary does."""
    known = {key: environment[key] for key in ("cores", "cpu", "date") if key in environment}
    return ", ".join(
        f"{value} cores" if key == "cores" else str(value) for key, value in known.items()
    )


def _escape(text: str) -> str:
    """Keep a cell one cell: no line break, no bare bar."""
    return " ".join(text.split()).replace("|", "\\|")


def copy_pictures(folders: Iterable[Path], *, into: Path) -> None:
    """Copy the pictures that the documents show, where a run has drawn them anew."""
    for folder in folders:
        for picture in sorted(folder.glob("*.svg")):
            if picture.name in PICTURES:
                into.mkdir(parents=True, exist_ok=True)
                with write_whole(into / picture.name) as part:
                    part.write_bytes(picture.read_bytes())


def _build_load_tables(benches: Path) -> Iterator[str]:
    """Yield the generator beside its peer and a soak, as far as they were run."""
    bench, soak = (benches / name for name in LOAD_FILES)
    if bench.is_file():
        yield from build_bench_tables(read_json(bench))
    if soak.is_file():
        result = read_json(soak)
        copy_pictures({Path(path).parent for path in result["wrote"]}, into=DOCUMENTS_PICTURES)
        pictures = {picture.name for picture in DOCUMENTS_PICTURES.glob("*.svg")}
        yield from build_soak_tables(result, pictures=pictures)


def main() -> None:
    """Rewrite the tables of README.md and docs/ from what lies in the current folder's runs/."""
    demo, benches = Path("runs/demo/summary.json"), Path("runs/bench")
    handbook = Path("runs/fraud/handbook/handbook.json")
    timelapse = Path("runs/fraud/timelapse/timelapse.json")
    if not any(path.exists() for path in (demo, benches, handbook, timelapse)):
        sys.exit("error: nothing was run here; run make demo first, from the repository's root")
    try:
        if demo.is_file():
            write_results_table(Path("README.md"), read_json(demo))
        if handbook.is_file():
            replace_marked(Path("docs/handbook.md"), build_handbook_tables(read_json(handbook)))
        if benches.is_dir():
            replace_sections(Path("docs/benchmarks.md"), build_benchmark_tables(benches))
        if any((benches / f"{name}.json").is_file() for name in SERVING_TITLES):
            tables = build_benchmark_tables(benches, titles=SERVING_TITLES)
            replace_sections(Path("docs/serving.md"), tables)
        if any((benches / name).is_file() for name in LOAD_FILES):
            replace_sections(Path("docs/load.md"), _build_load_tables(benches))
        if timelapse.is_file():
            tables = chain(
                build_timelapse_tables(read_json(timelapse)),
                build_benchmark_tables(benches, titles=LOOP_TITLES),
            )
            replace_sections(Path("docs/loop.md"), tables)
        copy_pictures((benches, timelapse.parent), into=DOCUMENTS_PICTURES)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
