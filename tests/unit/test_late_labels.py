"""Late outcomes: only matured rows count, and what is not known yet is said."""

import numpy as np
import pandas as pd
import pytest

from monitoring.late_labels import (
    Performance,
    PerformanceLimits,
    join_outcomes,
    measure_performance,
)
from training.operating_point import Prices

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2026-03-01", tz="UTC")


def make_predictions(days: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(len(days))],
            "event_time": pd.to_datetime([START + day * DAY for day in days], utc=True),
            "score": [0.5] * len(days),
            "decision": ["approve"] * len(days),
            "amount": [50.0] * len(days),
            "outcome_share": [1.0] * len(days),
        }
    )


def make_labels(rows: list[tuple[str, bool, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": [name for name, _, _ in rows],
            "is_fraud": [is_fraud for _, is_fraud, _ in rows],
            "label_time": pd.to_datetime([START + day * DAY for _, _, day in rows], utc=True),
        }
    )


def join(predictions: pd.DataFrame, labels: pd.DataFrame, *, day: float) -> pd.DataFrame:
    return join_outcomes(predictions, labels=labels, now=START + day * DAY, label_delay_days=7)


def measure(
    outcomes: pd.DataFrame,
    *,
    expected: dict | None = None,
    min_frauds: int = 1,
    max_drop: float = 0.1,
    max_cost_increase: float = 0.25,
) -> Performance:
    return measure_performance(
        outcomes.assign(customer_id=outcomes["transaction_id"]),
        expected=expected or {},
        prices=Prices(review_fee=3.0, false_decline_goodwill=15.0),
        limits=PerformanceLimits(max_drop, max_cost_increase, min_frauds, false_alarm_rate=0.025),
        num_resamples=200,
        seed=0,
    )


def test_an_outcome_is_unknown_until_its_label_arrives():
    predictions, labels = make_predictions([0]), make_labels([("t0", True, 3)])
    assert join(predictions, labels, day=2.9)["is_fraud"].isna().all()
    assert join(predictions, labels, day=3)["is_fraud"].tolist() == [True]


def test_a_fraud_reported_early_does_not_count_before_the_others_of_its_day():
    predictions = make_predictions([0, 0])
    labels = make_labels([("t0", True, 1), ("t1", False, 7)])
    early = measure(join(predictions, labels, day=2))
    assert early.num_frauds == 0
    assert early.immature_share == 1
    late = measure(join(predictions, labels, day=7))
    assert (late.num_labelled, late.num_frauds, late.immature_share) == (2, 1, 0)


def test_the_immature_and_the_never_labelled_shares_are_told_apart():
    predictions = make_predictions([0, 0, 0, 5])
    labels = make_labels([("t0", True, 1), ("t1", False, 7), ("t3", True, 6)])
    performance = measure(join(predictions, labels, day=8))
    assert performance.immature_share == 0.25
    assert performance.unlabelled_share == pytest.approx(1 / 3)
    assert performance.num_labelled == 2


def test_a_transaction_answered_twice_counts_once_with_its_first_answer():
    predictions = make_predictions([0, 1])
    predictions["transaction_id"] = "t0"
    predictions["score"] = [0.1, 0.9]
    outcomes = join(predictions, make_labels([("t0", True, 3)]), day=9)
    assert outcomes["score"].tolist() == [0.1]


def test_too_few_frauds_give_a_reason_and_no_number():
    predictions = make_predictions([0, 0])
    labels = make_labels([("t0", True, 1), ("t1", False, 7)])
    performance = measure(join(predictions, labels, day=9), min_frauds=2)
    assert not performance.is_known
    assert performance.describe()["average_precision"] is None
    assert not performance.is_degraded
    assert "1 matured frauds of at least 2" in performance.reason


def test_frauds_only_give_no_number_since_nothing_is_ranked():
    performance = measure(join(make_predictions([0]), make_labels([("t0", True, 1)]), day=9))
    assert not performance.is_known


def test_no_prediction_at_all_is_no_error():
    performance = measure(join(make_predictions([]), make_labels([]), day=9))
    assert (performance.num_predictions, performance.immature_share) == (0, 1)


@pytest.fixture
def outcomes() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    is_fraud = generator.random(2000) < 0.05
    predictions = make_predictions([0] * 2000)
    predictions["score"] = 1 / (1 + np.exp(3 - generator.normal(is_fraud * 1.5)))
    labels = make_labels([(f"t{i}", bool(flag), 7) for i, flag in enumerate(is_fraud)])
    return join(predictions, labels, day=8)


def test_the_metrics_lie_within_their_intervals(outcomes):
    metrics = measure(outcomes).metrics
    for name in ("average_precision", "cost_per_1000", "brier_score", "fraud_ratio"):
        low, high = metrics[f"{name}_interval"]
        assert low < metrics[name] < high


def test_a_champion_counts_as_degraded_only_if_chance_cannot_explain_it(outcomes):
    metrics = measure(outcomes).metrics
    realised = metrics["average_precision"]
    low, high = metrics["average_precision_interval"]

    def is_degraded(expected: float, **changes) -> bool:
        return measure(outcomes, expected={"average_precision": expected}, **changes).is_degraded

    assert not is_degraded(realised)
    assert not is_degraded(realised / 0.91)
    assert not is_degraded(realised + 0.9 * (high - low) / 2, max_drop=0.0)
    assert is_degraded(realised + 1.1 * (high - low) / 2, max_drop=0.0)
    assert not is_degraded(realised + 1.1 * (high - low) / 2, max_drop=0.9)


def test_what_was_expected_is_uncertain_too(outcomes):
    metrics = measure(outcomes).metrics
    low, high = metrics["average_precision_interval"]
    expected = metrics["average_precision"] + 1.1 * (high - low) / 2
    known = {"average_precision": expected}
    vague = {**known, "average_precision_interval": [expected - 0.2, expected + 0.2]}
    assert measure(outcomes, expected=known, max_drop=0.0).is_degraded
    assert not measure(outcomes, expected=vague, max_drop=0.0).is_degraded


def test_the_rarer_a_false_alarm_may_be_the_more_it_takes(outcomes):
    low, high = measure(outcomes).metrics["average_precision_interval"]
    expected = measure(outcomes).metrics["average_precision"] + 1.1 * (high - low) / 2
    for rate, is_degraded in ((0.025, True), (0.01, False)):
        performance = measure_performance(
            outcomes.assign(customer_id=outcomes["transaction_id"]),
            expected={"average_precision": expected},
            prices=Prices(review_fee=3.0, false_decline_goodwill=15.0),
            limits=PerformanceLimits(0.0, 0.25, 1, false_alarm_rate=rate),
            num_resamples=200,
            seed=0,
        )
        assert performance.is_degraded is is_degraded


def test_a_cost_above_the_expected_counts_as_degraded_and_one_below_does_not(outcomes):
    cost = measure(outcomes).metrics["cost_per_1000"]
    assert measure(outcomes, expected={"cost_per_1000": cost / 2}).is_degraded
    assert not measure(
        outcomes, expected={"cost_per_1000": cost / 2}, max_cost_increase=2
    ).is_degraded
    assert not measure(outcomes, expected={"cost_per_1000": cost * 2}).is_degraded


def test_the_outcome_of_a_declined_transaction_is_never_looked_up():
    predictions = make_predictions([0, 0]).assign(outcome_share=[0.0, 0.2])
    labels = make_labels([("t0", True, 1), ("t1", False, 7)])
    outcomes = join(predictions, labels, day=8)
    assert outcomes["is_fraud"].isna().tolist() == [True, False]
    assert outcomes["weight"].tolist() == [0.0, 5.0]


def test_declined_transactions_without_any_let_through_give_no_number(outcomes):
    declined = outcomes.assign(
        weight=outcomes["weight"].where(outcomes["score"] < 0.3, 0.0),
        is_fraud=outcomes["is_fraud"].where(outcomes["score"] < 0.3, None),
    )
    performance = measure(declined)
    assert not performance.is_known
    assert performance.num_declined == int((outcomes["score"] >= 0.3).sum())
    assert "raise serving.explore_share" in performance.reason


def test_what_was_let_through_is_counted_and_its_weight_told(outcomes):
    weights = np.where(outcomes.index < 10, 20.0, 1.0)
    performance = measure(outcomes.assign(weight=weights))
    assert performance.num_explored == 10
    assert performance.effective_rows == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_frauds_that_stand_for_many_are_worth_few_of_them():
    predictions = make_predictions([0] * 4)
    labels = make_labels([("t0", True, 1), ("t1", True, 1), ("t2", True, 1), ("t3", False, 7)])
    outcomes = join(predictions, labels, day=8)
    assert measure(outcomes, min_frauds=3).is_known
    assert not measure(outcomes.assign(weight=[20.0, 1, 1, 1]), min_frauds=2).is_known
