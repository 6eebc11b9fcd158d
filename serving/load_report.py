"""What a load run saw becomes a summary a person can defend, and files for other tools.

``load.json`` is the summary, ``latency.hgrm`` the whole latency distribution as HdrHistogram's own
plotter reads it (milliseconds), ``load.csv`` one line per interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from hdrh.histogram import HdrHistogram

from configs.files import write_whole
from serving.load_histogram import build_histogram
from serving.load_result import MAX_CPU_SHARE, LoadResult

CLOSED_CAVEAT = (
    "closed loop: every connection waits for its answer, so latency under overload is understated "
    "(coordinated omission)"
)
OPEN_CAVEAT = "open loop: latency counts from when a request was due, sent then or not"
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def describe_load(result: LoadResult) -> dict[str, Any]:
    """Summarise a load run as JSON; latencies in milliseconds, shares of one core."""
    tallies = result.tallies
    degraded = dict(tallies.get("degraded_reason", {}))
    is_open = result.offered_qps is not None
    return {
        "loop": "open" if is_open else "closed",
        "requests": result.requests,
        "errors": sum(result.errors.values()),
        "errors_by_kind": dict(result.errors),
        "shed": result.shed,
        "degraded": sum(degraded.values()),
        "degraded_by_reason": degraded,
        "compared_with_typed_lane": tallies.get("expected", Counter())["compared"],
        "seconds": round(result.seconds, 3),
        "offered_qps": result.offered_qps,
        "qps": round(result.qps, 1),
        **describe_percentiles(result.latencies),
        "max_ms": result.latencies.get_max_value() / 1e3,
        **describe_percentiles(result.service_times, prefix="from_send_"),
        "waited_for_a_connection": result.waited,
        "reconnects": result.reconnects,
        "model_versions": dict(tallies.get("model_version", {})),
        **describe_generator(result),
        "valid": result.valid,
        "why": list(result.why),
        "interrupted": result.interrupted,
        "caveat": OPEN_CAVEAT if is_open else CLOSED_CAVEAT,
    }


def describe_percentiles(histogram: HdrHistogram, *, prefix: str = "") -> dict[str, float]:
    """Read percentiles, as ``p99_9_ms``; 0.0 each where nothing was counted."""
    values = histogram.get_percentile_to_value_dict(PERCENTILES)
    return {
        f"{prefix}p{f'{percentile:g}'.replace('.', '_')}_ms": values.get(percentile, 0) / 1e3
        for percentile in PERCENTILES
    }


def describe_generator(result: LoadResult) -> dict[str, Any]:
    """Say what the generator itself took, and how late it was."""
    core_wait = result.core_wait_share
    return {
        "send_lag_p99_ms": result.send_lags.get_value_at_percentile(99.0) / 1e3,
        "generator_cpu_share": round(result.cpu_share, 3),
        "generator_core_wait_share": None if core_wait is None else round(core_wait, 3),
        "generator_us_per_request": round(
            1e6 * result.generator_cpu_seconds / max(result.requests, 1), 2
        ),
        "generator_was_busy": result.cpu_share > MAX_CPU_SHARE,
    }


def build_time_series(result: LoadResult) -> pd.DataFrame:
    """Build one row per interval of the due time, until nothing more was due.

    Returns:
        ``start_seconds`` (since the end of the warm-up), ``requests`` (all but those shed),
        ``p50_ms``, ``p99_ms`` and ``max_ms``; latencies are missing where nothing was due.
    """
    return pd.DataFrame(
        list(_build_intervals(result)),
        columns=["start_seconds", "requests", "p50_ms", "p99_ms", "max_ms"],
    )


def _build_intervals(result: LoadResult) -> Iterator[Mapping[str, float | None]]:
    for number, counts in enumerate(result.intervals):
        start, requests = number * result.interval_seconds, int(counts.sum())
        if start >= result.seconds and not result.intervals[number:].any():
            return
        latencies = build_histogram(counts)
        values = latencies.get_percentile_to_value_dict([50.0, 99.0, 100.0])
        yield {
            "start_seconds": start,
            "requests": requests,
            **{
                name: values[percentile] / 1e3 if requests else None
                for name, percentile in (("p50_ms", 50.0), ("p99_ms", 99.0), ("max_ms", 100.0))
            },
        }


def write_percentiles(path: Path, latencies: HdrHistogram) -> None:
    """Write the distribution as HdrHistogram's percentile text, in milliseconds."""
    with write_whole(path) as part, part.open("wb") as file:
        latencies.output_percentile_distribution(file, 1e3)


def write_time_series(path: Path, series: pd.DataFrame) -> None:
    """Write the intervals as CSV."""
    with write_whole(path) as part:
        series.to_csv(part, index=False)
