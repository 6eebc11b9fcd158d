"""A service becomes numbers: one load run, a ladder up to its knee, or a soak; files and one page.

What is sent and how it is timed is in ``load_worker``; when to believe it, in ``load_run``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from configs.environment import describe_environment
from configs.files import write_json, write_whole
from configs.schema import FraudConfig
from serving.load_address import is_loopback
from serving.load_figures import (
    plot_latency,
    plot_latency_over_time,
    plot_memory,
    plot_rung_latency,
    plot_throughput,
)
from serving.load_ladder import climb, describe_ladder
from serving.load_page import write_load_page
from serving.load_report import (
    build_time_series,
    describe_load,
    write_percentiles,
    write_time_series,
)
from serving.load_result import LoadResult
from serving.load_soak import MemoryWatch, describe_halves, describe_soak, find_workers
from serving.load_target import (
    LoadJob,
    prepare_foreign_job,
    prepare_fraud_job,
    reach_service,
)

SOAK_PICTURES = ("soak.svg", "soak-memory.svg")
FILES = ("load.json", "latency.hgrm", "load.csv", "latency.svg", *SOAK_PICTURES, "load.html")
SOAK_INTERVALS = 10
"""A soak's intervals are so many times as long as a run's."""


def run_load(
    config: FraudConfig,
    *,
    url: str | None = None,
    allow_hosts: Collection[str] = (),
    now: pd.Timestamp | None = None,
    path: str | None = None,
    body: Path | None = None,
    expect: bool = False,
    ladder: bool = False,
    soak_seconds: float | None = None,
) -> dict[str, Any]:
    """Send real customers' transactions to the service, check every answer, measure.

    Args:
        config: ``load`` says how fast, how long and over how many connections; ``runs`` has the
            transactions, and the champion if the service is to be started here.
        url: A running service; by default one is started here, and stopped at the end.
        allow_hosts: Which machines ``url`` may be on besides this one.
        now: The instant the requests follow, UTC; by default the one the online store was built
            for, since windows asked for much later are empty.
        path: What is asked, instead of ``load.path``.
        body: Request bodies, one JSON document a line, for a service that is not ours: only its
            status is checked then.
        expect: Whether to hold a sample of the answers against the typed lane's.
        ladder: Whether to raise the rate until the service cannot follow.
        soak_seconds: Whether to keep the rate up for so long and look for growth.

    Returns:
        What was measured (latencies in milliseconds), ``valid`` and ``why``, ``interrupted``,
        ``environment``, ``wrote`` and ``next``.

    Raises:
        FileNotFoundError: If there are no transactions to draw from, or no ``body``.
        ValueError: If ``url`` is neither on this machine nor on one of ``allow_hosts``, no service
            answers there, or the arguments do not go together.
    """
    _check_arguments(
        config, url=url, body=body, expect=expect, ladder=ladder, soak_seconds=soak_seconds
    )
    if allow_hosts and url is None:
        raise ValueError("--allow-host goes with --url: without it a service is started here")
    with reach_service(config, url, allow_hosts=allow_hosts) as service:
        path = path or config.load.path
        if body is not None:
            job = prepare_foreign_job(config, url=service, path=path, body=body)
        else:
            job = prepare_fraud_job(config, url=service, path=path, expect=expect, now=now)
        folder = config.runs / "load"
        if ladder:
            return _run_ladder(job, folder=folder)
        if soak_seconds is not None:
            return _run_soak(job, folder=folder, seconds=soak_seconds)
        return _run_once(job, folder=folder)


def _check_arguments(
    config: FraudConfig,
    *,
    url: str | None,
    body: Path | None,
    expect: bool,
    ladder: bool,
    soak_seconds: float | None,
) -> None:
    if body is not None and (url is None or expect):
        raise ValueError("--body goes with --url and without --expect: it is for other services")
    if ladder and soak_seconds is not None:
        raise ValueError("--ladder and --soak are two runs; choose one")
    if soak_seconds is not None and config.load.rate is None:
        raise ValueError("--soak needs --rate: a closed loop would slow down with the service")


def _run_once(job: LoadJob, *, folder: Path) -> dict[str, Any]:
    rate = job.settings.rate
    result = job.measure(rate=rate, seconds=job.settings.seconds)
    series = build_time_series(result)
    latency = _draw_latency(result)
    _clear(folder)
    with write_whole(folder / "latency.svg") as part:
        part.write_text(latency, encoding="utf-8")
    write_percentiles(folder / "latency.hgrm", result.latencies)
    write_time_series(folder / "load.csv", series)
    title = "Load, closed loop" if rate is None else f"Load at {rate:,.0f} requests/s"
    figures = {"latency": latency, "over_time": plot_latency_over_time(series)}
    return _write_up(job, folder, title=title, facts=describe_load(result), figures=figures)


def _run_ladder(job: LoadJob, *, folder: Path) -> dict[str, Any]:
    settings = job.settings.ladder
    ladder = climb(
        lambda rate: job.measure(rate=rate, seconds=settings.rung_seconds), settings=settings
    )
    facts = describe_ladder(ladder)
    figures = {}
    _clear(folder)
    if ladder.rungs:
        figures = {
            "throughput": plot_throughput(ladder),
            "rung_latency": plot_rung_latency(ladder, max_p99_ms=settings.max_p99_ms),
        }
        rungs = pd.json_normalize([rung["more"] | rung for rung in facts["rungs"].values()])
        write_time_series(folder / "load.csv", rungs.filter(regex=r"^[^.]+$"))
    if ladder.knee is not None:
        figures["latency"] = _draw_latency(ladder.knee.result)
        write_percentiles(folder / "latency.hgrm", ladder.knee.result.latencies)
    return _write_up(job, folder, title="Load ladder", facts=facts, figures=figures)


def _run_soak(job: LoadJob, *, folder: Path, seconds: float) -> dict[str, Any]:
    interval = SOAK_INTERVALS * job.settings.interval_seconds
    is_ours_and_here = job.check is not None and is_loopback(job.target.url)
    workers = find_workers(job.target.url) if is_ours_and_here else set()
    memory = MemoryWatch(workers, interval_seconds=interval)
    result = job.measure(
        rate=job.settings.rate, seconds=seconds, interval_seconds=interval, watch=memory
    )
    series = build_time_series(result)
    figures = {"over_time": plot_latency_over_time(series), "latency": _draw_latency(result)}
    if memory.samples:
        figures["memory"] = plot_memory(memory.samples)
        seen = dict(enumerate(megabytes for _, megabytes in memory.samples))
        series["memory_mb"] = series.index.map(seen)
    _clear(folder)
    write_percentiles(folder / "latency.hgrm", result.latencies)
    write_time_series(folder / "load.csv", series)
    for name, figure in zip(SOAK_PICTURES, ("over_time", "memory"), strict=True):
        if figure in figures:
            with write_whole(folder / name) as part:
                part.write_text(figures[figure], encoding="utf-8")
    facts = {
        **describe_soak(series, memory.samples),
        "asked_seconds": seconds,
        "halves": describe_halves(result, memory.samples),
        **describe_load(result),
    }
    title = f"Soak at {job.settings.rate:,.0f} requests/s"
    return _write_up(job, folder, title=title, facts=facts, figures=figures)


def _draw_latency(result: LoadResult) -> str:
    curves = {"from when it was due": result.latencies}
    if result.offered_qps is None:
        curves = {"latency": result.latencies}
    else:
        curves["from when it was sent"] = result.service_times
    return plot_latency(curves)


def _clear(folder: Path) -> None:
    """Remove an earlier run's files, so that all there is comes from one run."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _write_up(
    job: LoadJob,
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    figures: Mapping[str, str],
) -> dict[str, Any]:
    """Write ``load.json`` and the page beside the other files; return the stage's result."""
    settings = job.settings
    summary = {
        "title": title,
        "path": job.target.path,
        **facts,
        "arrivals": settings.arrivals,
        "connections": settings.num_connections,
        "processes": settings.processes,
        "environment": describe_environment(),
    }
    write_load_page(folder / "load.html", summary=summary, figures=figures)
    write_json(folder / "load.json", summary)
    return {
        **summary,
        "wrote": [str(folder / name) for name in FILES if (folder / name).is_file()],
        "next": f"open {folder / 'load.html'}; throughline fraud load --url URL --replay-days 3, "
        "then throughline fraud monitor",
    }
