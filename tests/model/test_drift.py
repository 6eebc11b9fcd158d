"""Drift verdicts: Evidently's distances, our thresholds, and how often both are wrong."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from features.windows import DAY
from monitoring.comparable_columns import make_comparable
from monitoring.drift import measure_drift
from monitoring.drift_verdict import ColumnDrift, DriftLimits, DriftVerdict
from monitoring.reference_windows import (
    find_thresholds,
    measure_categorical_windows,
    measure_numeric_windows,
    plan_windows,
)

LIMITS = DriftLimits(
    min_rows=500,
    max_rows=2000,
    num_reference_windows=30,
    false_alarm_rate=0.03,
    min_drifted_importance=0.3,
)
FEATURES = (
    "amount_log",
    "merchant_amount_mean_30d",
    "hour_sin",
    "is_weekend",
    "is_new",
    "card_type",
)
ALIKE = dict.fromkeys(FEATURES, 1.0)
DAYS = pd.Timedelta(days=1)


def simulate(*, days: range, seed: int, rows_per_day: int = 400, shift: float = 0.0):
    """An unchanging world with weekday and daily rhythms, and days that differ by chance.

    ``shift`` moves the amounts by so many of their standard deviations.
    """
    generator = np.random.default_rng(seed)
    start = pd.Timestamp("2026-01-01", tz="UTC")
    day = np.repeat(np.arange(days.start, days.stop), rows_per_day)
    hour = generator.normal(14, 4, day.size).clip(0, 23.99)
    event_time = start + pd.to_timedelta(day * 24 + hour, unit="h")
    mood = np.repeat(generator.normal(0, 0.1, len(days)), rows_per_day)
    is_weekend = event_time.dayofweek >= 5
    amounts = generator.normal(3, 1, day.size) + 0.2 * is_weekend + mood + shift
    rows = pd.DataFrame(
        {
            "event_time": event_time,
            "amount_log": amounts,
            "merchant_amount_mean_30d": generator.lognormal(3 + mood + shift, 1),
            "hour_sin": np.sin(hour / 24 * 2 * np.pi),
            "is_weekend": is_weekend.astype(float),
            "is_new": (generator.random(day.size) < 0.1).astype(float),
            "card_type": generator.choice(["debit", "credit"], day.size, p=[0.7, 0.3]),
            "score": 1 / (1 + np.exp(5 - amounts)),
        }
    )
    return rows.sort_values("event_time").reset_index(drop=True)


def measure(current, reference, *, report=None, limits=LIMITS, importance=ALIKE) -> DriftVerdict:
    return measure_drift(
        current,
        reference=reference,
        categorical=("card_type",),
        importance=importance,
        limits=limits,
        seed=0,
        report=report,
    )


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return simulate(days=range(30), seed=0)


@pytest.fixture(scope="module")
def current() -> pd.DataFrame:
    return simulate(days=range(30, 33), seed=1)


def keep(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Some columns only: only those in the window are compared, and Evidently is slow."""
    return rows[["event_time", *names]]


def pick(verdict: DriftVerdict, name: str) -> ColumnDrift:
    return next(feature for feature in verdict.features if feature.column == name)


def test_the_calibration_measures_the_same_distances_as_evidently(reference):
    amounts = reference["amount_log"].where(reference.index % 5 > 0)
    reference = reference.assign(amount_log=amounts)
    plan = plan_windows(
        reference["event_time"].to_numpy("datetime64[us]").astype(np.int64),
        start_time=20_500 * DAY,
        end_time=20_503 * DAY,
        num_windows=5,
        max_rows=10_000,
        seed=0,
    )
    window = plan.windows[2]
    inside, outside = reference[window.inside], reference[window.outside]
    verdict = measure(inside, outside, limits=replace(LIMITS, max_rows=10_000))
    before, now = make_comparable(outside, current=inside, categorical=("event_time", "card_type"))
    for name in ("amount_log", "is_weekend", "is_new"):
        values = np.empty(len(reference))
        values[window.inside], values[window.outside] = now[name], before[name]
        ours = measure_numeric_windows(values, plan=plan).distances[2]
        assert pick(verdict, name).value == pytest.approx(ours, abs=1e-9)
    codes = pd.factorize(reference["card_type"])[0].astype(np.int64)
    ours = measure_categorical_windows(codes, plan=plan).distances[2]
    assert pick(verdict, "card_type").value == pytest.approx(ours, abs=1e-9)


def test_an_unchanged_window_is_quiet_and_a_shifted_one_is_not(reference, current):
    quiet = measure(current, reference)
    assert not quiet.is_detected
    assert quiet.reason == "0 of 6 features drifted, 0% of the importance; an alarm needs 30%"
    moved = measure(simulate(days=range(30, 33), seed=1, shift=0.6), reference)
    assert moved.is_detected
    assert set(moved.drifted) == {"amount_log", "merchant_amount_mean_30d"}
    assert moved.score is not None
    assert moved.score.is_drifted


def test_a_window_without_a_weekend_is_no_drift_of_the_weekend_flag(reference):
    weekdays = keep(simulate(days=range(32, 35), seed=2), "is_weekend")
    assert not weekdays["is_weekend"].any()
    assert "is_weekend" not in measure(weekdays, reference).drifted


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_evidently_reports_the_same_distances_thresholds_and_verdict(tmp_path, reference, weight):
    moved = keep(simulate(days=range(30, 33), seed=1, shift=0.8), "amount_log", "is_new", "score")
    importance = {"amount_log": weight, "is_new": 1.0}
    verdict = measure(moved, reference, report=tmp_path / "report.html", importance=importance)
    assert verdict == measure(moved, reference, importance=importance)
    assert verdict.are_features_drifted is bool(weight)
    metrics = json.loads((tmp_path / "report.json").read_text())["metrics"]
    shown = {m["config"]["column"]: m for m in metrics if "column" in m["config"]}
    for feature in verdict.features:
        assert shown[feature.column]["value"] == pytest.approx(feature.value)
        assert shown[feature.column]["config"]["threshold"] == pytest.approx(feature.threshold)
        assert shown[feature.column]["config"]["method"] == feature.statistic
    assert metrics[0]["value"]["count"] == len(verdict.drifted)
    says_drift = metrics[0]["value"]["share"] >= metrics[0]["config"]["drift_share"]
    assert says_drift is verdict.are_features_drifted
    html = (tmp_path / "report.html").read_text()
    assert "<script src" not in html
    assert "<link" not in html


def test_too_few_rows_are_never_drift(reference):
    moved = simulate(days=range(30, 32), seed=1, shift=3.0)
    verdict = measure(moved.iloc[:499], reference)
    assert not verdict.is_detected
    assert verdict.reason == "not enough rows: 499 of at least 500"


def test_rows_above_the_maximum_are_sampled_the_same_way_each_time(reference):
    moved = keep(simulate(days=range(30, 36), seed=1), "amount_log")
    first, second = measure(moved, reference), measure(moved, reference)
    assert first.num_rows == 2000
    assert first == second


def test_an_empty_column_is_left_out_with_the_reason(reference, current):
    verdict = measure(current.assign(amount_log=np.nan, card_type=None), reference)
    assert dict(verdict.excluded) == {
        "amount_log": "0 values in the window; at least 100 are needed",
        "card_type": "0 values in the window; at least 100 are needed",
    }
    assert len(verdict.features) == 4


def test_a_nearly_empty_column_is_left_out(reference, current):
    sparse = keep(current, "is_new").assign(is_new=lambda rows: rows["is_new"].head(99))
    assert "99 values" in measure(sparse, reference).excluded["is_new"]


def test_a_window_without_any_usable_column_is_no_drift(reference, current):
    empty = current[["event_time"]].assign(amount_log=np.nan)
    verdict = measure(empty, reference)
    assert not verdict.is_detected
    assert verdict.features == ()


def test_a_column_the_reference_lacks_values_of_is_left_out(reference, current):
    verdict = measure(keep(current, "is_new"), reference.assign(is_new=np.nan))
    assert verdict.excluded == {
        "is_new": "too few values in the reference to calibrate a threshold"
    }


def test_infinities_count_as_missing(reference, current):
    broken, missing = (
        keep(current).assign(amount_log=current["amount_log"].where(current.index % 10 > 0, value))
        for value in (np.inf, np.nan)
    )
    assert measure(broken, reference) == measure(missing, reference)


def test_a_constant_column_is_no_drift_while_it_stays(reference, current):
    verdict = measure(keep(current).assign(is_new=1.0), reference.assign(is_new=1.0))
    assert pick(verdict, "is_new").value == 0
    assert "is_new" not in verdict.drifted


def test_nearly_equal_shares_are_no_drift_though_rounding_makes_their_distance_nan():
    """6,667 of 19,999 and 3,333 of 9,998 differ by 5e-9."""
    with np.errstate(invalid="ignore"):
        assert np.isnan(jensenshannon([6667, 13332], [3333, 6665]))
    before, now = (
        pd.DataFrame(
            {
                "event_time": pd.date_range(start, periods=rows, freq="2min", tz="UTC"),
                "card_type": np.random.default_rng(0).permutation(
                    ["debit"] * debit + ["credit"] * (rows - debit)
                ),
            }
        )
        for start, rows, debit in (("2026-01-01", 19_999, 6667), ("2026-02-01", 9998, 3333))
    )
    verdict = measure(now, before, limits=replace(LIMITS, max_rows=10_000))
    assert pick(verdict, "card_type").value == 0
    assert not verdict.drifted


def test_a_category_never_seen_before_is_drift(reference, current):
    cards = current["card_type"].where(current.index % 4 > 0, "virtual")
    strange = keep(current).assign(card_type=cards)
    assert "card_type" in measure(strange, reference).drifted


def test_of_very_many_categories_the_rare_ones_are_taken_together(reference, current):
    generator = np.random.default_rng(5)
    before, now = (
        rows.assign(card_type=[f"card {i}" for i in generator.geometric(0.01, len(rows))])
        for rows in (reference, current)
    )
    kept = before["card_type"].value_counts().index[:30]
    shares = [
        rows["card_type"]
        .where(rows["card_type"].isin(kept), "rare")
        .value_counts()[[*kept, "rare"]]
        for rows in (before, now)
    ]
    limits = replace(LIMITS, max_rows=10_000)
    verdict = measure(keep(now, "card_type"), before, limits=limits)
    measured = pick(verdict, "card_type")
    assert measured.value == pytest.approx(jensenshannon(*shares))
    assert not measured.is_drifted


def test_a_shift_in_a_heavy_tail_counts_as_one_in_the_middle(reference, current):
    """A tenth of the reference's rows is passed by each shifted value, at the median as above."""
    column = "merchant_amount_mean_30d"
    before = np.sort(reference[column].to_numpy())
    ranks = np.searchsorted(before, current[column].to_numpy())
    distances = []
    for low in (0.45, 0.85):
        is_moved = (ranks >= low * before.size) & (ranks < (low + 0.05) * before.size)
        above = before[np.minimum(ranks + before.size // 10, before.size - 1)]
        moved = keep(current, column).assign(**{column: np.where(is_moved, above, current[column])})
        distances.append(pick(measure(moved, reference), column).value)
    assert distances[0] == pytest.approx(distances[1], rel=0.5)


def test_an_alarm_needs_features_that_matter(reference):
    moved = simulate(days=range(30, 33), seed=1, shift=0.8)[["event_time", "amount_log", "is_new"]]
    slight = measure(moved, reference, importance={"amount_log": 0.29, "is_new": 0.71})
    assert slight.drifted == ("amount_log",)
    assert slight.drifted_importance == pytest.approx(0.29)
    assert not slight.is_detected
    assert measure(moved, reference, importance={"amount_log": 0.3, "is_new": 0.7}).is_detected


def test_drifted_scores_are_an_alarm_of_their_own(reference, current):
    moved = keep(current, "is_new", "score").assign(score=current["score"] ** 0.5)
    verdict = measure(moved, reference)
    assert not verdict.are_features_drifted
    assert verdict.is_detected
    assert verdict.reason.endswith("the scores drifted")


def test_a_few_giants_are_no_drift(reference, current):
    giants = keep(current, "merchant_amount_mean_30d").copy()
    giants.loc[giants.index[:3], "merchant_amount_mean_30d"] = 1e9
    assert "merchant_amount_mean_30d" not in measure(giants, reference).drifted


def test_the_frames_are_not_modified(reference, current):
    current = keep(current, "amount_log", "card_type")
    before, reference_before = current.copy(), reference.copy()
    measure(current, reference)
    pd.testing.assert_frame_equal(current, before)
    pd.testing.assert_frame_equal(reference, reference_before)


def test_false_alarms_are_as_rare_as_stated_and_a_real_shift_is_found():
    """Four columns of 40 unchanged worlds, stated at 1 %: P(Binomial(160, 0.01) > 7) < 0.1 %."""
    alarms = hits = 0
    for seed in range(40):
        rows = simulate(days=range(33), seed=100 + seed, rows_per_day=150)
        is_current = rows["event_time"] >= rows["event_time"].iloc[0].normalize() + 30 * DAYS
        before, now = rows[~is_current], rows[is_current]
        plan = plan_windows(
            before["event_time"].to_numpy("datetime64[us]").astype(np.int64),
            start_time=now["event_time"].iloc[0].value // 1000,
            end_time=now["event_time"].iloc[-1].value // 1000,
            num_windows=30,
            max_rows=10_000,
            seed=0,
        )
        names = ["amount_log", "merchant_amount_mean_30d", "hour_sin", "is_new"]
        more = now[names].assign(amount_log=now["amount_log"] + 0.6)
        usual, seen = make_comparable(before[names], current=now[names], categorical=())
        _, shifted = make_comparable(before[names], current=more, categorical=())
        thresholds = find_thresholds(
            {name: measure_numeric_windows(usual[name].to_numpy(), plan=plan) for name in names},
            plan=plan,
            false_alarm_rates=dict.fromkeys(names, 0.01),
        )
        for name in names:
            std = usual[name].std(ddof=0)
            alarms += wasserstein_distance(usual[name], seen[name]) / std >= thresholds[name]
            if name == "amount_log":
                hits += wasserstein_distance(usual[name], shifted[name]) / std >= thresholds[name]
    assert alarms <= 7
    assert hits >= 36
