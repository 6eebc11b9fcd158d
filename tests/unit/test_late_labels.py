"""Late outcomes: only matured rows count, and what is not known yet is said."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from monitoring.late_labels import Performance, join_outcomes, measure_performance

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2026-03-01", tz="UTC")


def make_predictions(days: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": [f"t{i}" for i in range(len(days))],
            "event_time": pd.to_datetime([START + day * DAY for day in days], utc=True),
            "score": [0.5] * len(days),
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
    outcomes: pd.DataFrame, *, expected: float = 0.5, min_frauds: int = 1, max_drop: float = 0.1
) -> Performance:
    return measure_performance(
        outcomes.assign(customer_id=outcomes["transaction_id"]),
        expected_average_precision=expected,
        max_drop=max_drop,
        min_frauds=min_frauds,
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
    assert performance.average_precision is None
    assert not performance.is_degraded
    assert "1 matured frauds of at least 2" in performance.reason


def test_frauds_only_give_no_number_since_nothing_is_ranked():
    performance = measure(join(make_predictions([0]), make_labels([("t0", True, 1)]), day=9))
    assert performance.average_precision is None


def test_no_prediction_at_all_is_no_error():
    performance = measure(join(make_predictions([]), make_labels([]), day=9))
    assert (performance.num_predictions, performance.immature_share) == (0, 1)


@pytest.fixture
def outcomes() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    is_fraud = generator.random(2000) < 0.05
    predictions = make_predictions([0] * 2000)
    predictions["score"] = generator.normal(is_fraud * 1.5)
    labels = make_labels([(f"t{i}", bool(flag), 7) for i, flag in enumerate(is_fraud)])
    return join(predictions, labels, day=8)


def test_realised_numbers_are_those_of_scikit_learn(outcomes):
    performance = measure(outcomes)
    truth, scores = outcomes["is_fraud"].astype(bool), outcomes["score"]
    assert performance.average_precision == pytest.approx(average_precision_score(truth, scores))
    assert performance.roc_auc == pytest.approx(roc_auc_score(truth, scores))
    low, high = performance.average_precision_interval
    assert low < performance.average_precision < high


def test_a_champion_counts_as_degraded_only_if_the_interval_rules_chance_out(outcomes):
    realised = measure(outcomes).average_precision
    high = measure(outcomes).average_precision_interval[1]
    assert not measure(outcomes, expected=realised).is_degraded
    assert not measure(outcomes, expected=realised / 0.91).is_degraded
    assert realised / 0.89 < high
    assert not measure(outcomes, expected=realised / 0.89).is_degraded
    assert measure(outcomes, expected=high + 0.01).is_degraded
    assert not measure(outcomes, expected=high + 0.01, max_drop=0.9).is_degraded
