from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from serving.load_soak import MIN_POINTS, MemoryWatch, describe_soak, find_trend, read_memory_mb

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
