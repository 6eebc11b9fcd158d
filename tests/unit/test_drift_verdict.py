"""One verdict from many columns: how often it is wrong, however the columns hang together."""

import numpy as np
import pytest

from monitoring.drift_verdict import SCORE, ColumnDrift, DriftLimits, DriftVerdict, weigh_columns

LIMITS = DriftLimits(
    min_rows=1,
    max_rows=1,
    num_reference_windows=5,
    false_alarm_rate=0.05,
    min_drifted_importance=0.2,
)


def make_column(name: str, *, is_drifted: bool, importance: float = 0.0) -> ColumnDrift:
    return ColumnDrift(name, "wasserstein", 1.0 if is_drifted else 0.0, 0.5, importance)


@pytest.mark.parametrize("correlation", [0.0, 0.9, 1.0])
def test_false_alarms_are_at_most_as_frequent_as_stated_however_features_move_together(correlation):
    """Each of ten features is beyond its threshold as often as ``find_rate`` allows."""
    generator = np.random.default_rng(0)
    worlds, rate = 20_000, LIMITS.find_rate("amount_log")
    common, own = generator.normal(size=(worlds, 1)), generator.normal(size=(worlds, 10))
    moves = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    is_drifted = moves > np.quantile(generator.normal(size=10**6), 1 - rate)
    importance = generator.dirichlet(np.ones(10))
    is_alarm = is_drifted @ importance >= LIMITS.min_drifted_importance
    assert is_alarm.mean() <= LIMITS.false_alarm_rate


def test_the_score_is_held_to_the_stated_rate_itself():
    assert LIMITS.find_rate(SCORE) == LIMITS.false_alarm_rate


def test_a_feature_left_out_lends_its_importance_to_the_others():
    """0.15 of 0.5 that could be compared is 30 %."""
    columns = [
        make_column("amount_log", is_drifted=True, importance=0.15),
        make_column("is_night", is_drifted=False, importance=0.35),
    ]
    is_drifted, _, share = weigh_columns(columns, min_drifted_importance=0.2)
    assert (is_drifted, share) == (True, pytest.approx(0.3))


def test_features_of_no_importance_are_no_alarm():
    columns = [make_column("amount_log", is_drifted=True)]
    assert weigh_columns(columns, min_drifted_importance=0.2)[0] is False


def test_a_drifted_score_alone_is_detected():
    verdict = DriftVerdict(
        are_features_drifted=False, reason="", score=make_column(SCORE, is_drifted=True)
    )
    assert verdict.is_detected
