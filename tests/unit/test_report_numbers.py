"""A monitoring report becomes numbers, and what it does not know becomes none."""

import math

import pytest

from monitoring.report_numbers import collect_feature_drifts, collect_numbers

REPORT = {
    "rows": 2000,
    "quality": {
        "findings": [
            {"severity": "block", "message": "a"},
            {"severity": "warn", "message": "b"},
        ]
    },
    "drift": {
        "columns": {
            "amount_log": {"value": 0.3, "threshold": 0.1, "drifted": True},
            "is_night": {"value": 0.05, "threshold": 0.1, "drifted": False},
        },
        "score": {"value": 0.02, "threshold": 0.08, "drifted": False},
    },
    "performance": {
        "average_precision": 0.6,
        "average_precision_interval": [0.5, 0.7],
        "immature_share": 0.25,
        "brier_score": None,
    },
}


def test_drifted_features_are_counted():
    assert collect_numbers(REPORT)["drifted_features"] == 1.0


def test_an_estimate_without_labels_is_not_taken_for_realised():
    numbers = collect_numbers(REPORT | {"estimate": {"average_precision": 0.4}})
    found = numbers["average_precision"], numbers["estimated_average_precision"]
    assert found == (0.6, 0.4)


def test_only_findings_that_block_are_counted():
    assert collect_numbers(REPORT)["blocking_findings"] == 1.0


def test_a_distance_is_given_over_its_threshold():
    assert collect_numbers(REPORT)["score_drift"] == pytest.approx(0.25)
    assert collect_feature_drifts(REPORT) == pytest.approx({"amount_log": 3.0, "is_night": 0.5})


def test_an_interval_becomes_its_two_ends():
    numbers = collect_numbers(REPORT)
    ends = numbers["average_precision_low"], numbers["average_precision_high"]
    assert ends == (0.5, 0.7)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_what_is_not_known_is_no_number(unknown):
    performance = REPORT["performance"] | {"average_precision": unknown}
    assert "average_precision" not in collect_numbers(REPORT | {"performance": performance})


def test_a_report_in_which_nothing_was_compared_has_no_number_of_drifted_features():
    drift = {"columns": {}, "score": None}
    assert "drifted_features" not in collect_numbers(REPORT | {"drift": drift})
