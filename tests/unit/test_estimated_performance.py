"""Estimates from scores alone: right where the scores are, and a gap where they are not."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from features.windows import DAY
from monitoring.announced_frauds import draw_average_precisions
from monitoring.estimated_performance import (
    estimate_average_precision,
    estimate_performance,
    find_lowest_estimate,
    measure_gap,
)
from monitoring.reference_windows import plan_windows
from training.bootstrap import draw_customers
from training.operating_point import Prices, Thresholds, measure_costs

PRICES = Prices(review_fee=3.0, false_decline_goodwill=15.0)
AT = Thresholds(review=0.2, decline=0.7, min_review_amount=3.0)


def draw_scores(generator, num: int) -> np.ndarray:
    return generator.beta(0.15, 3.0, num)


def make_answers(seed: int, *, num: int = 6000, honesty: float = 1.0) -> pd.DataFrame:
    """Answers of whose announced frauds a share, ``honesty``, comes about, or more than all."""
    generator = np.random.default_rng(seed)
    scores, amounts = draw_scores(generator, num), generator.lognormal(3, 1, num)
    return pd.DataFrame(
        {
            "customer_id": [f"c{i}" for i in generator.integers(0, 1500, num)],
            "score": scores,
            "amount": amounts,
            "decision": AT.decide(scores, amounts),
            "weight": 1.0,
            "is_fraud": (generator.random(num) < honesty * scores).astype(object),
        }
    )


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return draw_scores(np.random.default_rng(99), 20_000)


@pytest.fixture(scope="module")
def plan():
    times = np.linspace(0, 21 * DAY, 20_000).astype(np.int64)
    return plan_windows(
        times, start_time=25 * DAY, end_time=29 * DAY, num_windows=30, max_rows=10_000, seed=0
    )


def estimate(answers: pd.DataFrame, reference, plan, *, max_drop=0.1, min_frauds=30):
    return estimate_performance(
        answers,
        reference_scores=reference,
        plan=plan,
        prices=PRICES,
        max_drop=max_drop,
        min_frauds=min_frauds,
        false_alarm_rate=0.01,
        num_resamples=200,
        seed=0,
    )


def gap(answers: pd.DataFrame, *, max_drop=0.1, min_frauds=30, false_alarm_rate=0.01):
    return measure_gap(
        answers,
        max_drop=max_drop,
        min_frauds=min_frauds,
        false_alarm_rate=false_alarm_rate,
        num_resamples=200,
        seed=0,
    )


def test_the_realised_lies_within_the_interval_where_frauds_follow_the_scores(reference, plan):
    """Of 40 worlds at 95 %, fewer than 34 inside: P < 1 %."""
    inside = cost_inside = 0
    for seed in range(40):
        answers = make_answers(seed, num=3000)
        found = estimate(answers, reference, plan)
        truth = answers["is_fraud"].astype(bool).to_numpy()
        low, high = found.average_precision_interval
        inside += low <= average_precision_score(truth, answers["score"]) <= high
        costs = measure_costs(
            answers["decision"].to_numpy(dtype=str),
            is_fraud=truth,
            amounts=answers["amount"].to_numpy(),
            prices=PRICES,
        )
        low, high = found.cost_per_1000_interval
        cost_inside += low <= 1000 * costs.mean() <= high
    assert inside >= 34
    assert cost_inside >= 34


def test_the_estimate_is_what_scikit_learn_makes_of_each_row_as_both_fraud_and_not():
    scores = draw_scores(np.random.default_rng(0), 500)
    both = average_precision_score(
        np.repeat([True, False], 500), np.tile(scores, 2), sample_weight=[*scores, *(1 - scores)]
    )
    assert estimate_average_precision(scores) == pytest.approx(both)


def test_drawn_frauds_in_blocks_give_what_drawing_each_gives():
    generator = np.random.default_rng(1)
    scores = draw_scores(generator, 8000)
    customers = draw_customers(pd.Series([f"c{i}" for i in range(8000)]), num_resamples=1, seed=0)
    plainly = [average_precision_score(generator.random(8000) < scores, scores) for _ in range(200)]
    in_blocks = [
        draw_average_precisions(scores, np.ones(8000), bootstrap=customers, seed=seed)[0]
        for seed in range(200)
    ]
    error = np.hypot(np.std(plainly), np.std(in_blocks)) / np.sqrt(200)
    assert np.mean(in_blocks) == pytest.approx(np.mean(plainly), abs=3 * error)
    assert np.std(in_blocks) == pytest.approx(np.std(plainly), rel=0.25)


def test_an_estimate_is_low_only_below_the_windows_of_the_reference(reference, plan):
    lowest = find_lowest_estimate(reference, plan=plan, false_alarm_rate=0.01)
    usual = estimate(make_answers(0), reference, plan, max_drop=0.0)
    assert lowest < usual.expected_average_precision
    assert not usual.is_low
    vague = make_answers(0).assign(score=lambda rows: 0.2 + 0.1 * rows["score"])
    low = estimate(vague, reference, plan)
    assert low.average_precision < lowest
    assert low.is_low
    assert not estimate(vague, reference, plan, max_drop=0.9).is_low


def test_an_estimate_says_what_it_is_worth(reference, plan):
    assert "valid under covariate shift only" in estimate(make_answers(0), reference, plan).reason


def test_too_few_expected_frauds_give_a_reason_and_no_number(reference, plan):
    found = estimate(make_answers(0, num=100), reference, plan)
    assert found.average_precision is None
    assert not found.is_low
    assert "frauds expected of at least 30" in found.reason


def test_there_is_no_gap_where_frauds_follow_the_scores():
    assert sum(gap(make_answers(seed), max_drop=0.0).is_concept_drift for seed in range(20)) <= 1


def test_a_gap_is_held_to_the_rate_of_false_alarms():
    """At a rate of one half, 4 to 16 of 20 unchanged worlds: outside P < 0.3 %."""
    worlds = (gap(make_answers(seed), max_drop=0.0, false_alarm_rate=0.5) for seed in range(20))
    assert 4 <= sum(found.is_concept_drift for found in worlds) <= 16


def test_scores_that_promise_too_much_are_concept_drift_and_no_estimate_sees_it(reference, plan):
    misled = make_answers(3, honesty=0.5)
    assert not estimate(misled, reference, plan).is_low
    found = gap(misled)
    assert found.is_concept_drift
    assert found.average_precision < found.average_precision_interval[1] < 0
    assert not gap(misled, max_drop=0.9).is_concept_drift


def test_scores_that_promise_too_little_are_no_alarm():
    assert not gap(make_answers(3, honesty=2.0)).is_concept_drift


def test_rows_without_an_outcome_take_no_part_in_the_gap():
    answers = make_answers(4)
    blind = answers.assign(is_fraud=answers["is_fraud"].where(answers["score"] < 0.6, None))
    assert gap(blind) == gap(answers[answers["score"] < 0.6])


def test_the_gap_needs_frauds():
    found = gap(make_answers(5, num=100))
    assert found.average_precision is None
    assert "of at least 30" in found.reason


def test_the_same_answers_give_the_same_numbers(reference, plan):
    answers = make_answers(6)
    assert estimate(answers, reference, plan) == estimate(answers, reference, plan)
    assert gap(answers) == gap(answers)
