"""The data-quality gate: each fault of a feed is found and named, and a sound feed stays quiet."""

import numpy as np
import pandas as pd
import pytest

from monitoring.data_quality import Finding, QualityLimits, check_quality

LIMITS = QualityLimits(
    max_null_share_increase=0.2,
    max_unit_ratio=30.0,
    max_duplicate_share=0.05,
    max_degraded_share=0.2,
)
NAMES = (
    "amount_log",
    "is_weekend",
    "merchant_amount_mean_30d",
    "customer_tx_count_7d",
    "card_type",
)
MONDAY = pd.Timestamp("2026-01-05", tz="UTC")


def make_features(*, num_days: int, seed: int, rows_per_day: int = 100) -> pd.DataFrame:
    """Rows of an unchanging feed, in time order, with ``event_time``."""
    generator = np.random.default_rng(seed)
    rows = num_days * rows_per_day
    event_time = MONDAY + pd.to_timedelta(np.arange(rows) * 86_400 / rows_per_day, unit="s")
    return pd.DataFrame(
        {
            "event_time": event_time,
            "amount_log": np.log1p(generator.lognormal(3, 0.5, rows)),
            "is_weekend": (event_time.dayofweek >= 5).astype(float),
            "merchant_amount_mean_30d": generator.gamma(9, 4, rows),
            "customer_tx_count_7d": generator.poisson(5, rows).astype(float),
            "card_type": generator.choice(["debit", "credit"], rows),
        }
    )


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return make_features(num_days=14, seed=0)


@pytest.fixture
def current() -> pd.DataFrame:
    return make_features(num_days=3, seed=1)


def find(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    predictions: pd.DataFrame | None = None,
    until: pd.Timestamp | None = None,
    expected_rows_per_day: float | None = None,
) -> tuple[Finding, ...]:
    if predictions is None:
        predictions = make_predictions(current)
    return check_quality(
        current.drop(columns="event_time"),
        predictions=predictions,
        reference=reference,
        names=NAMES,
        categorical=("card_type",),
        until=until or predictions["event_time"].max(),
        limits=LIMITS,
        expected_rows_per_day=expected_rows_per_day,
    )


def make_predictions(current: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(len(current))],
            "event_time": current["event_time"],
            "degraded_reason": None,
        }
    )


def name_findings(findings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [(finding.check, finding.column, finding.severity) for finding in findings]


def test_a_sound_feed_has_no_findings_even_in_a_window_without_a_weekend(current, reference):
    assert not current["is_weekend"].any()
    assert find(current, reference, expected_rows_per_day=100) == ()


def test_an_all_null_column_is_a_finding_and_not_a_crash(current, reference):
    current["merchant_amount_mean_30d"] = np.nan
    assert name_findings(find(current, reference)) == [
        ("null", "merchant_amount_mean_30d", "block")
    ]


def test_a_categorical_column_without_values_is_a_finding(current, reference):
    current["card_type"] = None
    assert name_findings(find(current, reference)) == [("null", "card_type", "block")]


@pytest.mark.parametrize(("num_null", "blocks"), [(50, False), (61, True)])
def test_nulls_block_only_above_the_allowed_increase(current, reference, num_null, blocks):
    current.loc[: num_null - 1, "amount_log"] = np.nan
    assert bool(find(current, reference)) is blocks


def test_nulls_that_the_reference_has_too_are_no_finding(current, reference):
    reference = reference.assign(amount_log=reference["amount_log"].where(reference.index % 2 == 0))
    current["amount_log"] = current["amount_log"].where(current.index % 2 == 0)
    assert find(current, reference) == ()


def test_a_missing_feature_blocks_and_an_extra_one_warns(current, reference):
    renamed = current.rename(columns={"amount_log": "amount"})
    assert name_findings(find(renamed, reference)) == [
        ("schema", "amount_log", "block"),
        ("schema", "amount", "warn"),
    ]


def test_text_among_numbers_blocks_and_shows_an_example(current, reference):
    current["amount_log"] = current["amount_log"].astype(object)
    current.loc[7, "amount_log"] = "12,50"
    (finding,) = find(current, reference)
    assert (finding.check, finding.severity, finding.value) == ("type", "block", 1.0)
    assert "'12,50'" in finding.message


def test_few_infinities_warn_and_many_count_as_missing(current, reference):
    current.loc[0, "amount_log"] = np.inf
    assert name_findings(find(current, reference)) == [("infinite", "amount_log", "warn")]
    current.loc[:99, "amount_log"] = -np.inf
    assert ("null", "amount_log", "block") in name_findings(find(current, reference))


def test_a_frozen_column_blocks(current, reference):
    current["customer_tx_count_7d"] = 4.0
    current["card_type"] = "debit"
    assert name_findings(find(current, reference)) == [
        ("constant", "customer_tx_count_7d", "block"),
        ("constant", "card_type", "block"),
    ]


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_changed_unit_blocks(current, reference, factor):
    current["merchant_amount_mean_30d"] *= factor
    assert ("unit", "merchant_amount_mean_30d", "block") in name_findings(find(current, reference))


def test_cents_for_euros_are_found_through_the_logarithm(current, reference):
    current["amount_log"] = np.log1p(100 * np.expm1(current["amount_log"]))
    (finding,) = (item for item in find(current, reference) if item.check == "unit")
    assert finding.column == "amount_log"
    assert finding.value == pytest.approx(100, rel=0.2)


def test_a_world_in_which_amounts_triple_is_no_unit_change(current, reference):
    current["merchant_amount_mean_30d"] *= 3
    assert not [item for item in find(current, reference) if item.check == "unit"]


def test_one_value_far_outside_the_range_warns_and_many_block(current, reference):
    high = reference["merchant_amount_mean_30d"].max()
    current.loc[0, "merchant_amount_mean_30d"] = 3 * high
    assert name_findings(find(current, reference)) == [
        ("range", "merchant_amount_mean_30d", "warn")
    ]
    current.loc[: len(current) // 10, "merchant_amount_mean_30d"] = 3 * high
    assert name_findings(find(current, reference)) == [
        ("range", "merchant_amount_mean_30d", "block")
    ]


@pytest.mark.parametrize(("num_repeated", "severity"), [(3, "warn"), (30, "block")])
def test_repeated_transactions_are_counted(current, reference, num_repeated, severity):
    predictions = make_predictions(current)
    predictions.loc[1:num_repeated, "transaction_id"] = "t0"
    (finding,) = find(current, reference, predictions=predictions)
    assert (finding.check, finding.severity) == ("duplicate", severity)
    assert finding.value == pytest.approx(num_repeated / 300)


def test_answers_without_the_feature_store_block_and_give_the_reason(current, reference):
    predictions = make_predictions(current)
    predictions.loc[:99, "degraded_reason"] = "store unreachable"
    (finding,) = find(current, reference, predictions=predictions)
    assert (finding.check, finding.severity) == ("degraded", "block")
    assert "33.33% of answers were degraded, most often: store unreachable" in finding.message


@pytest.mark.parametrize(
    ("usual", "severity"), [(30.0, "warn"), (3.0, "block"), (300.0, "warn"), (4000.0, "block")]
)
def test_a_volume_far_from_the_usual_is_a_finding(current, reference, usual, severity):
    findings = find(current, reference, expected_rows_per_day=usual)
    assert name_findings(findings) == [("volume", "", severity)]


def test_a_feed_that_stopped_is_stale(current, reference):
    until = current["event_time"].max() + pd.Timedelta(hours=25)
    assert name_findings(find(current, reference, until=until)) == [
        ("freshness", "event_time", "warn")
    ]


def test_blocking_findings_come_first(current, reference):
    current.loc[0, "merchant_amount_mean_30d"] = np.inf
    current["customer_tx_count_7d"] = np.nan
    severities = [finding.severity for finding in find(current, reference)]
    assert severities == ["block", "warn"]


def test_the_frames_are_not_modified(current, reference):
    current.loc[0, "amount_log"] = np.inf
    before, reference_before = current.copy(), reference.copy()
    find(current, reference)
    pd.testing.assert_frame_equal(current, before)
    pd.testing.assert_frame_equal(reference, reference_before)


def test_no_rows_at_all_are_findings_and_not_a_crash(current, reference):
    checks = {finding.check for finding in find(current.iloc[:0], reference, until=MONDAY)}
    assert checks == {"null"}
