"""One bad day in a sound week is found and named; sound days, whole or not, are quiet."""

import numpy as np
import pandas as pd
import pytest

from monitoring.data_quality import Finding, QualityLimits
from monitoring.partition_quality import check_partitions

LIMITS = QualityLimits(
    max_null_share_increase=0.2,
    max_unit_ratio=30.0,
    max_duplicate_share=0.05,
    max_degraded_share=0.2,
)
MONDAY = pd.Timestamp("2026-01-05", tz="UTC")
DAY = pd.Timedelta(days=1)
NAMES = ("amount_log", "is_weekend", "is_night", "is_rare", "customer_tx_count_7d", "card_type")


def make_features(*, num_days: int, seed: int, rows_per_day: int = 400) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = num_days * rows_per_day
    event_time = MONDAY + pd.to_timedelta(np.arange(rows) * 86_400 / rows_per_day, unit="s")
    return pd.DataFrame(
        {
            "event_time": event_time,
            "amount_log": np.log1p(generator.lognormal(3, 0.5, rows)),
            "is_weekend": (event_time.dayofweek >= 5).astype(float),
            "is_night": (event_time.hour < 6).astype(float),
            "is_rare": (generator.random(rows) < 0.01).astype(float),
            "customer_tx_count_7d": generator.poisson(2, rows).astype(float),
            "card_type": generator.choice(["debit", "credit"], rows),
        }
    )


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return make_features(num_days=14, seed=0)


@pytest.fixture
def current() -> pd.DataFrame:
    return make_features(num_days=7, seed=1)


def find(current, reference, *, since=MONDAY, until=MONDAY + 7 * DAY, usual=400.0):
    return check_partitions(
        current.drop(columns="event_time"),
        event_times=current["event_time"],
        since=since,
        until=until,
        reference=reference,
        names=NAMES,
        categorical=("card_type",),
        limits=LIMITS,
        expected_rows_per_day=usual,
    )


def on_day(current: pd.DataFrame, day: int) -> pd.Series:
    return current["event_time"].dt.floor("D") == MONDAY + day * DAY


def name_findings(findings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [(finding.check, finding.column, finding.severity) for finding in findings]


def test_a_sound_week_has_no_findings(current, reference):
    assert find(current, reference) == ()


@pytest.mark.parametrize("column", ["customer_tx_count_7d", "card_type"])
def test_a_day_without_any_value_blocks_and_is_named(current, reference, column):
    current[column] = current[column].where(~on_day(current, 3), None)
    (finding,) = find(current, reference)
    assert (finding.check, finding.column, finding.severity) == ("null", column, "block")
    assert "2026-01-08" in finding.message


def test_a_day_of_nothing_but_zeros_blocks_and_is_named(current, reference):
    current.loc[on_day(current, 2), "customer_tx_count_7d"] = 0.0
    (finding,) = find(current, reference)
    assert (finding.check, finding.severity) == ("zero", "block")
    assert "100% of the rows of 2026-01-07; at most 1" in finding.message


def test_a_day_whose_store_was_empty_for_hours_blocks(current, reference):
    is_empty = on_day(current, 2) & (current["event_time"].dt.hour < 12)
    current.loc[is_empty, "customer_tx_count_7d"] = 0.0
    assert name_findings(find(current, reference)) == [("zero", "customer_tx_count_7d", "block")]


def test_a_day_of_one_value_blocks(current, reference):
    current.loc[on_day(current, 6), "amount_log"] = 3.0
    current.loc[on_day(current, 6), "card_type"] = "debit"
    assert name_findings(find(current, reference)) == [
        ("constant", "amount_log", "block"),
        ("constant", "card_type", "block"),
    ]


def test_a_day_in_cents_blocks_and_is_named(current, reference):
    cents = np.log1p(100 * np.expm1(current["amount_log"]))
    current["amount_log"] = current["amount_log"].where(~on_day(current, 5), cents)
    (finding,) = find(current, reference)
    assert (finding.check, finding.column) == ("unit", "amount_log")
    assert "2026-01-10" in finding.message


def test_two_bad_days_are_one_finding_that_names_both(current, reference):
    is_bad = on_day(current, 1) | on_day(current, 4)
    current["amount_log"] = current["amount_log"].where(~is_bad)
    (finding,) = find(current, reference)
    assert "2026-01-06, 2026-01-09" in finding.message


def test_a_rare_flag_that_rests_for_a_day_is_no_finding(current, reference):
    current.loc[on_day(current, 2), "is_rare"] = 0.0
    assert find(current, reference) == ()


def test_half_a_day_is_not_frozen_because_it_has_no_night(current, reference):
    noon = MONDAY + DAY / 2
    assert find(current[current["event_time"] >= noon], reference, since=noon) == ()


def test_nulls_that_a_day_of_the_reference_had_too_are_no_finding(current, reference):
    empty = reference["event_time"].dt.floor("D") == MONDAY
    reference = reference.assign(amount_log=reference["amount_log"].where(~empty))
    current["amount_log"] = current["amount_log"].where(~on_day(current, 3))
    assert find(current, reference) == ()


@pytest.mark.parametrize(("kept", "severity"), [(0.4, "warn"), (0.02, "block"), (0.0, "block")])
def test_a_day_of_which_much_is_lost_is_named(current, reference, kept, severity):
    is_late = (current["event_time"] - MONDAY) % DAY >= kept * DAY
    is_lost = on_day(current, 3) & is_late
    (finding,) = [found for found in find(current[~is_lost], reference) if found.check == "volume"]
    assert finding.severity == severity
    assert "2026-01-08" in finding.message


def test_the_frames_are_not_modified(current, reference):
    before, reference_before = current.copy(), reference.copy()
    find(current, reference)
    pd.testing.assert_frame_equal(current, before)
    pd.testing.assert_frame_equal(reference, reference_before)
