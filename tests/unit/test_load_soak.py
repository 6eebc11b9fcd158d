from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from monitoring.benchmark_table import build_soak_tables
from serving.load_histogram import NUM_BUCKETS, find_buckets
from serving.load_plan import WorkerReport
from serving.load_result import LoadResult, merge_reports
from serving.load_soak import (
    MIN_POINTS,
    MemoryWatch,
    describe_halves,
    describe_soak,
    find_trend,
    read_memory_mb,
)

TIMES = np.arange(0.0, 3600.0, 10.0)


def draw_noise(scale: float) -> np.ndarray:
    return np.random.default_rng(5).normal(0.0, scale, size=len(TIMES))


def test_a_slope_in_the_series_is_found_per_hour_and_called_growth():
    trend = find_trend(TIMES, 500.0 + 100.0 * TIMES / 3600 + draw_noise(5.0))
    assert trend.verdict == "growth"
    assert trend.slope_per_hour == pytest.approx(100.0, abs=5.0)
    assert trend.low_per_hour < trend.slope_per_hour < trend.high_per_hour


def test_the_slope_is_the_median_of_the_slopes_between_all_pairs():
    times, values = [0, 1, 2, 3, 4, 5], [1.0, 1.5, 9.0, 3.0, 2.5, 4.0]
    slopes = [
        (values[j] - values[i]) / (times[j] - times[i]) for i in range(6) for j in range(i + 1, 6)
    ]
    assert find_trend(times, values).slope_per_hour == pytest.approx(3600 * np.median(slopes))


def test_noise_around_a_level_is_no_growth():
    assert find_trend(TIMES, 500.0 + draw_noise(50.0)).verdict == "no growth"


def test_a_shrinking_series_is_no_growth():
    assert find_trend(TIMES, 500.0 - 200.0 * TIMES / 3600 + draw_noise(5.0)).verdict == "no growth"


def test_a_few_bad_intervals_at_the_end_are_no_growth_though_least_squares_says_so():
    values = 10.0 + draw_noise(1.0)
    values[-8:] = 900.0
    fitted = stats.linregress(TIMES, values)
    assert fitted.slope - 2 * fitted.stderr > 0
    assert find_trend(TIMES, values).verdict == "no growth"


def test_growth_that_is_certain_but_too_small_to_matter_is_no_growth():
    trend = find_trend(TIMES, 500.0 + 10.0 * TIMES / 3600)
    assert trend.low_per_hour > 0
    assert trend.verdict == "no growth"


def test_a_series_of_few_points_is_not_judged_and_missing_ones_do_not_count():
    values = [1.0, 2.0, np.nan, 4.0, 5.0, 6.0]
    assert len(values) == MIN_POINTS
    trend = find_trend(range(6), values)
    assert (trend.verdict, trend.slope_per_hour) == ("too short to tell", None)


def make_series(p99_ms: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"start_seconds": TIMES, "p99_ms": p99_ms})


@pytest.mark.parametrize(
    ("latency", "memory", "verdict"),
    [
        (0.0, 0.0, "no growth"),
        (50.0, 0.0, "growth"),
        (0.0, 300.0, "growth"),
    ],
)
def test_a_soak_grows_if_latency_or_memory_does(latency, memory, verdict):
    series = make_series(20.0 + latency * TIMES / 3600)
    samples = [(float(time), 400.0 + memory * time / 3600) for time in TIMES]
    assert describe_soak(series, samples)["verdict"] == verdict


def test_a_soak_without_the_services_memory_judges_latency_alone():
    summary = describe_soak(make_series(20.0 + 50.0 * TIMES / 3600), [])
    assert summary["verdict"] == "growth"
    assert "memory" not in summary
    assert summary["p99"]["slope_ms_per_hour"] == pytest.approx(50.0)


def test_memory_is_sampled_once_an_interval_and_a_dead_process_has_none():
    watch = MemoryWatch([os.getpid()], interval_seconds=10.0)
    for seconds in (0.0, 5.0, 11.0, 12.0, 25.0):
        watch(seconds)
    assert [seconds for seconds, _ in watch.samples] == [0.0, 11.0, 25.0]
    assert all(megabytes > 10 for _, megabytes in watch.samples)
    assert read_memory_mb(2**30) == 0.0


def soak(*intervals: tuple[int, float, int], seconds: float) -> LoadResult:
    """Ten seconds each: so many requests, each of so many milliseconds, so many of them failed."""
    counts = np.zeros((len(intervals), NUM_BUCKETS), np.int64)
    for number, (requests, latency_ms, _) in enumerate(intervals):
        counts[number, find_buckets(np.array([latency_ms / 1e3]))] = requests
    failures = np.array([failed for *_, failed in intervals])
    report = WorkerReport(latencies=counts, failures=failures, ended=seconds)
    return merge_reports([report], offered_qps=20.0, interval_seconds=10.0, max_send_lag_ms=5.0)


MEMORY = [(0.0, 400.0), (10.0, 410.0), (20.0, 420.0), (30.0, 430.0)]


def test_the_halves_of_a_soak_are_told_apart():
    result = soak((200, 1.0, 0), (200, 1.0, 0), (200, 4.0, 0), (100, 4.0, 40), seconds=40.0)
    halves = describe_halves(result, MEMORY)
    assert list(halves) == ["first half", "second half"]
    assert halves["first half"] == {
        "seconds": 20.0,
        "qps": 20.0,
        "p50_ms": 1.0,
        "p99_ms": 1.0,
        "errors": 0,
        "memory_first_mb": 400.0,
        "memory_last_mb": 410.0,
    }
    assert halves["second half"]["qps"] == 13.0  # 260 answers in 20 seconds
    assert halves["second half"]["p50_ms"] == pytest.approx(4.0, rel=1e-3)
    assert halves["second half"]["errors"] == 40
    assert halves["second half"]["memory_last_mb"] == 430.0


def test_a_soak_that_was_ended_early_is_halved_at_the_middle_of_what_there_was():
    result = soak((200, 1.0, 0), (100, 2.0, 0), (0, 0.0, 0), (0, 0.0, 0), seconds=15.0)
    halves = describe_halves(result, [])
    assert [half["seconds"] for half in halves.values()] == [10.0, 5.0]
    assert [half["qps"] for half in halves.values()] == [20.0, 20.0]
    assert all("memory_first_mb" not in half for half in halves.values())


def test_a_soak_of_one_interval_has_an_empty_first_half_and_no_division_by_zero():
    first, second = describe_halves(soak((200, 1.0, 0), seconds=10.0), []).values()
    assert (first["seconds"], first["qps"], first["p50_ms"]) == (0.0, 0.0, 0.0)
    assert (second["seconds"], second["qps"]) == (10.0, 20.0)


def make_soak_summary(**changes: object) -> dict[str, object]:
    result = soak((200, 1.0, 0), (200, 1.0, 2), seconds=20.0)
    trend = {"slope_ms_per_hour": 1.5, "slope_ms_per_hour_interval": [-2.0, 4.0]}
    whole = {"seconds": 20.0, "qps": 19.9, "p50_ms": 1.0, "p99_ms": 1.0, "errors": 2}
    return {
        **whole,
        "halves": describe_halves(result, MEMORY),
        "p99": {**trend, "verdict": "no growth"},
        "memory": {
            "slope_mb_per_hour": None,
            "slope_mb_per_hour_interval": None,
            "verdict": "too short to tell",
        },
        "offered_qps": 20.0,
        "asked_seconds": 20.0,
        "requests": 400,
        "shed": 3,
        "degraded": 0,
        "why": [],
        "interrupted": False,
        "environment": {"date": "2026-11-30", "cores": 2, "cpu": "a cpu"},
        **changes,
    }


def test_the_page_shows_a_soaks_halves_what_grew_and_the_pictures_there_are():
    text = "\n".join(build_soak_tables(make_soak_summary(), pictures={"soak.svg"}))
    assert "`throughline fraud load --rate 20 --soak 20`" in text
    assert (
        "|  | seconds | requests/s | p50, ms | p99, ms | errors "
        "| memory first, MB | memory last, MB |"
    ) in text
    assert "| first half | 10 | 20 | 1 | 1 | 0 | 400 | 400 |" in text
    assert "| second half | 10 | 19.8 | 1 | 1 | 2 | 410 | 410 |" in text
    assert "| the whole | 20 | 19.9 | 1 | 1 | 2 |  |  |" in text
    assert "| p99, ms | 1.5 | -2 to 4 | no growth |" in text
    assert "| memory, MB | none | none | too short to tell |" in text
    assert "(pictures/soak.svg)" in text
    assert "soak-memory" not in text
    assert "400 requests, 3 shed, 0 degraded. Run on 2026-11-30, 2 cores, a cpu." in text


def test_the_page_says_why_a_soak_is_not_to_be_believed():
    changes = {"why": ["the generator was busy"], "interrupted": True}
    text = "\n".join(build_soak_tables(make_soak_summary(**changes), pictures=()))
    assert "**Ended early.** **Not valid**: the generator was busy. Run on" in text
