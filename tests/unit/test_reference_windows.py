"""Thresholds from a reference: where the windows lie, and that the distances are Evidently's."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from features.windows import DAY
from monitoring.prediction_limits import find_prediction_limit
from monitoring.reference_windows import (
    find_thresholds,
    measure_categorical_windows,
    measure_numeric_windows,
    measure_trend,
    plan_windows,
)


def plan(times, *, start, end, num_windows=30, max_rows=10_000):
    return plan_windows(
        times, start_time=start, end_time=end, num_windows=num_windows, max_rows=max_rows, seed=0
    )


def find_threshold(values, windows):
    """Find the threshold of one column, that no others stand beside."""
    is_text = values.dtype == np.int64
    measure = measure_categorical_windows if is_text else measure_numeric_windows
    thresholds = find_thresholds(
        {"it": measure(values, plan=windows)}, plan=windows, false_alarm_rates={"it": 0.01}
    )
    return thresholds.get("it")


HOURLY = np.arange(24 * 30, dtype=np.int64) * (DAY // 24)
"""A reference of 30 days, a row an hour."""


def test_windows_are_as_long_as_the_one_judged_and_start_at_its_time_of_day():
    start = 40 * DAY + DAY // 4
    windows = plan(HOURLY, start=start, end=start + 3 * DAY)
    assert windows.days == 3
    for window in windows.windows:
        assert HOURLY[window.inside][0] % DAY == DAY // 4
        assert np.ptp(HOURLY[window.inside]) == 3 * DAY


def test_a_window_is_held_against_what_lies_outside_it():
    for window in plan(HOURLY, start=40 * DAY, end=43 * DAY).windows:
        assert not (window.inside & window.outside).any()
        assert (window.inside | window.outside).all()


def test_rows_of_a_window_are_sampled_and_the_rest_of_it_is_used_nowhere():
    window = plan(HOURLY, start=40 * DAY, end=43 * DAY, max_rows=10).windows[0]
    assert window.inside.sum() == 10
    assert window.outside.sum() == HOURLY.size - 73


def test_a_window_nearly_as_long_as_the_reference_is_judged_by_five_side_by_side():
    windows = plan(HOURLY, start=40 * DAY, end=68 * DAY)
    assert windows.num_independent == pytest.approx(5)
    assert windows.days == pytest.approx(30 / 5, rel=0.01)


def test_the_trend_is_carried_on_at_most_by_the_length_of_the_reference():
    assert plan(HOURLY, start=32 * DAY, end=35 * DAY).gap_days == pytest.approx(33.5 - 27.5)
    assert plan(HOURLY, start=900 * DAY, end=903 * DAY).gap_days == pytest.approx(30, rel=0.01)
    assert plan(HOURLY, start=0, end=3 * DAY).gap_days == 0


def test_an_empty_reference_has_no_windows_and_no_threshold():
    empty = plan(np.empty(0, dtype=np.int64), start=0, end=DAY)
    assert empty.windows == ()
    assert find_threshold(np.empty(0), empty) is None


def test_a_threshold_is_the_prediction_limit_of_the_distances_scipy_measures():
    generator = np.random.default_rng(0)
    times = np.sort(generator.integers(0, 30 * DAY, 20_000))
    values = np.where(generator.random(20_000) < 0.1, np.nan, generator.lognormal(size=20_000))
    values += times / (10 * DAY)
    windows = plan(times, start=30 * DAY, end=33 * DAY)
    expected, means, centres = [], [], []
    for window in windows.windows:
        inside, outside = (
            rows[np.isfinite(rows)] for rows in (values[window.inside], values[window.outside])
        )
        expected.append(wasserstein_distance(outside, inside) / outside.std())
        means.append(inside.mean() / outside.std())
        centres.append(window.centre_time / DAY)
    limit = find_prediction_limit(
        np.log(expected), num_independent=windows.num_independent, exceeded_share=0.01
    )
    trend = measure_trend(
        np.array(means), days=np.array(centres), num_independent=windows.num_independent
    )
    assert limit is not None
    threshold = np.exp(limit) + trend * windows.gap_days
    assert find_threshold(values, windows) == pytest.approx(threshold, rel=1e-9)


def test_a_column_with_hardly_any_values_gets_no_threshold():
    values = np.full(HOURLY.size, np.nan)
    values[::100] = 1.0
    windows = plan(HOURLY, start=40 * DAY, end=43 * DAY)
    assert find_threshold(values, windows) is None


def test_a_feature_that_grew_all_along_may_go_on_growing():
    generator = np.random.default_rng(2)
    times = np.sort(generator.integers(0, 30 * DAY, 20_000))
    still = generator.normal(size=20_000)
    growing = still + times / (30 * DAY)
    soon = plan(times, start=30 * DAY, end=33 * DAY)
    later = plan(times, start=50 * DAY, end=53 * DAY)
    thresholds = [find_threshold(growing, windows) for windows in (soon, later)]
    per_day = 1 / 30 / growing.std()
    assert thresholds[1] - thresholds[0] == pytest.approx(20 * per_day, rel=0.1)
    assert find_threshold(still, later) == pytest.approx(find_threshold(still, soon), abs=0.1)


def test_chance_alone_makes_hardly_a_trend():
    generator = np.random.default_rng(3)
    days = np.arange(30.0)
    trends = [
        measure_trend(generator.normal(size=30), days=days, num_independent=30) for _ in range(200)
    ]
    assert np.median(trends) == 0
    assert np.quantile(trends, 0.99) < 0.1


def test_smaller_windows_need_a_larger_distance_between_categories():
    generator = np.random.default_rng(4)
    times = np.sort(generator.integers(0, 30 * DAY, 20_000))
    codes = generator.choice(3, 20_000, p=[0.5, 0.4, 0.1]).astype(np.int64)
    narrow, wide = (plan(times, start=30 * DAY, end=int((30 + days) * DAY)) for days in (0.25, 1))
    thresholds = [find_threshold(codes, windows) for windows in (narrow, wide)]
    assert thresholds[0] is not None
    assert thresholds[1] is not None
    assert 0 < thresholds[1] < thresholds[0] < np.sqrt(np.log(2))
