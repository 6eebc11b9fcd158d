"""Hours of steady load become a verdict: do latency or memory grow?

A leak shows as a slope. Theil-Sen's is the median of the slopes between all pairs of intervals, so
single bad intervals do not make one; its interval says what chance could have made. Growth is told
only where even the lower end of that interval adds up to something over the run.

Source: P. K. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau" (1968).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from serving.load_histogram import build_histogram
from serving.load_result import LoadResult

CONFIDENCE = 0.95
MIN_POINTS = 6
MIN_GROWTH_SHARE = 0.05
"""Of the median, over the whole run: less is no growth that would matter, however certain."""
POLLS = 8

Verdict = Literal["growth", "no growth", "too short to tell"]


@dataclass(frozen=True)
class Trend:
    """How a series moves: its slope per hour with an interval, and what that means."""

    slope_per_hour: float | None
    low_per_hour: float | None
    high_per_hour: float | None
    verdict: Verdict

    def describe(self, unit: str) -> dict[str, Any]:
        """Return the trend as JSON, the unit in the keys."""
        return {
            f"slope_{unit}_per_hour": self.slope_per_hour,
            f"slope_{unit}_per_hour_interval": None
            if self.low_per_hour is None
            else [self.low_per_hour, self.high_per_hour],
            "verdict": self.verdict,
        }


def find_trend(seconds: npt.ArrayLike, values: npt.ArrayLike) -> Trend:
    """Judge whether a series grows.

    The interval supposes independent intervals; memory's are not, so it is too narrow there, and
    the least growth that counts guards against that.

    Args:
        seconds: When each value was taken, increasing.
        values: As many, not negative; missing ones are left out.

    Returns:
        The trend; without a slope if there are fewer than ``MIN_POINTS`` values.

    >>> find_trend([0, 10, 20, 30, 40, 50], [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]).verdict
    'growth'
    """
    times, series = np.asarray(seconds, dtype=float), np.asarray(values, dtype=float)
    known = ~np.isnan(series)
    times, series = times[known], series[known]
    if len(series) < MIN_POINTS:
        return Trend(None, None, None, "too short to tell")
    slope, _, low, high = (float(item) for item in stats.theilslopes(series, times, CONFIDENCE))
    least_growth = low * (times[-1] - times[0])
    grows = least_growth > MIN_GROWTH_SHARE * float(np.median(series))
    return Trend(3600 * slope, 3600 * low, 3600 * high, "growth" if grows else "no growth")


class MemoryWatch:
    """Takes the memory of a service's processes while a load runs.

    Args:
        pids: Whose.
        interval_seconds: How often.
    """

    def __init__(self, pids: Iterable[int], *, interval_seconds: float) -> None:
        self.samples: list[tuple[float, float]] = []
        self._pids = sorted(pids)
        self._interval_seconds = interval_seconds
        self._next = 0.0

    def __call__(self, seconds: float) -> None:
        """Take a sample, ``seconds`` after the measurement began, if it is time."""
        if seconds >= self._next and self._pids:
            self._next = seconds + self._interval_seconds
            self.samples.append((seconds, sum(map(read_memory_mb, self._pids))))


def read_memory_mb(pid: int) -> float:
    """Read how much memory a process holds now (10^6 bytes); 0.0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def find_workers(url: str, *, get: Callable[..., httpx.Response] = httpx.get) -> set[int]:
    """Ask the fraud service, several times, which of its processes answers."""
    states = (get(f"{url}/model", timeout=5.0, trust_env=False) for _ in range(POLLS))
    return {int(state.json()["worker"]) for state in states}


def describe_soak(series: pd.DataFrame, memory: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Summarise a soak: the trends of the 99th percentile and of memory.

    Args:
        series: Of ``load_report.build_time_series``.
        memory: Seconds and 10^6 bytes.

    Returns:
        ``p99`` and ``memory`` (trends; memory's only where it was seen), and ``verdict``:
        ``growth`` if either grows.
    """
    trends = {"p99": find_trend(series["start_seconds"], series["p99_ms"]).describe("ms")}
    if memory:
        seconds, megabytes = zip(*memory, strict=True)
        trends["memory"] = find_trend(seconds, megabytes).describe("mb")
    verdicts = {trend["verdict"] for trend in trends.values()}
    order: tuple[Verdict, ...] = ("growth", "too short to tell", "no growth")
    return {**trends, "verdict": next(verdict for verdict in order if verdict in verdicts)}


def describe_halves(
    result: LoadResult, memory: Sequence[tuple[float, float]]
) -> dict[str, dict[str, float]]:
    """Summarise each half of a soak, so that a reader can compare its end with its beginning.

    Args:
        result: Of the whole soak.
        memory: Seconds and 10^6 bytes.

    Returns:
        ``first half`` and ``second half``: ``seconds``, ``qps`` (accepted), ``p50_ms``, ``p99_ms``,
        ``errors``, and ``memory_first_mb`` and ``memory_last_mb`` where memory was seen. A soak
        that was ended early is halved at the middle of what there was.
    """
    length = result.interval_seconds
    num = min(int(np.ceil(result.seconds / length)), len(result.intervals))
    halves = {"first half": (0, num // 2), "second half": (num // 2, num)}
    return {name: _describe_part(result, memory, *part) for name, part in halves.items()}


def _describe_part(
    result: LoadResult, memory: Sequence[tuple[float, float]], first: int, end: int
) -> dict[str, float]:
    """Summarise the intervals from ``first`` up to ``end``, that one left out."""
    counts = result.intervals[first:end].sum(axis=0)
    errors = int(result.failures[first:end].sum())
    start, stop = first * result.interval_seconds, end * result.interval_seconds
    seconds = min(stop, result.seconds) - start
    percentiles = build_histogram(counts).get_percentile_to_value_dict([50.0, 99.0])
    seen = [megabytes for second, megabytes in memory if start <= second < stop]
    return {
        "seconds": round(seconds, 1),
        "qps": round((int(counts.sum()) - errors) / seconds, 1) if seconds > 0 else 0.0,
        "p50_ms": percentiles.get(50.0, 0) / 1e3,
        "p99_ms": percentiles.get(99.0, 0) / 1e3,
        "errors": errors,
        **({"memory_first_mb": seen[0], "memory_last_mb": seen[-1]} if seen else {}),
    }
