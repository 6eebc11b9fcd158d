import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.operating_point import (
    ABOVE_ANY_SCORE,
    Prices,
    Thresholds,
    choose_thresholds,
    measure_costs,
    trace_costs,
)

PRICES = Prices(review_fee=3.0, false_decline_goodwill=15.0)


def find_cheapest(rows, *, capacity, prices=PRICES):
    """Try every pair of thresholds, as slowly as the definition reads."""
    candidates = [*sorted(set(rows["scores"])), ABOVE_ANY_SCORE]
    best = np.inf
    for review in candidates:
        for decline in (value for value in candidates if value >= review):
            at = Thresholds(review, decline, prices.review_fee)
            decisions = at.decide(rows["scores"], rows["amounts"])
            reviewed_days = rows["days"][decisions == "review"]
            if len(reviewed_days) and np.bincount(reviewed_days).max() > capacity:
                continue
            best = min(best, price(decisions, rows, prices))
    return best


def price(decisions, rows, prices=PRICES):
    costs = measure_costs(
        decisions, is_fraud=rows["is_fraud"], amounts=rows["amounts"], prices=prices
    )
    return costs.sum()


@st.composite
def draw_rows(draw):
    num_rows = draw(st.integers(1, 14))

    def draw_column(values):
        return np.array(draw(st.lists(values, min_size=num_rows, max_size=num_rows)))

    return {
        "scores": draw_column(st.integers(0, 5)) / 6.0,
        "is_fraud": draw_column(st.booleans()),
        "amounts": draw_column(st.sampled_from([1.0, 3.0, 10.0, 40.0, 200.0])),
        "days": draw_column(st.integers(0, 2)),
    }


@given(draw_rows(), st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_no_pair_of_thresholds_within_capacity_is_cheaper(rows, capacity):
    at = choose_thresholds(**rows, prices=PRICES, daily_review_capacity=capacity)
    decisions = at.decide(rows["scores"], rows["amounts"])

    assert price(decisions, rows) == pytest.approx(find_cheapest(rows, capacity=capacity))
    reviewed_days = rows["days"][decisions == "review"]
    assert not len(reviewed_days) or np.bincount(reviewed_days).max() <= capacity
    assert at.review <= at.decline


def test_by_hand():
    rows = {
        "scores": np.array([0.9, 0.6, 0.5, 0.2, 0.1]),
        "is_fraud": np.array([True, False, True, False, False]),
        "amounts": np.full(5, 100.0),
        "days": np.zeros(5, dtype=int),
    }

    at = choose_thresholds(**rows, prices=PRICES, daily_review_capacity=10)

    # decline 0.9 (free), review 0.6 and 0.5 (two fees), approve the rest
    assert at.decide(rows["scores"], rows["amounts"]).tolist() == [
        "decline",
        "review",
        "review",
        "approve",
        "approve",
    ]
    assert at.decline == pytest.approx(0.75)
    assert at.review == pytest.approx(0.35)


def test_without_reviewers_nothing_is_reviewed():
    rows = {
        "scores": np.array([0.9, 0.5, 0.1]),
        "is_fraud": np.array([True, False, False]),
        "amounts": np.full(3, 100.0),
        "days": np.zeros(3, dtype=int),
    }

    at = choose_thresholds(**rows, prices=PRICES, daily_review_capacity=0)

    assert at.decide(rows["scores"], rows["amounts"]).tolist() == ["decline", "approve", "approve"]


def test_amounts_a_review_could_not_pay_for_are_approved_and_take_no_capacity():
    rows = {
        "scores": np.array([0.9, 0.8, 0.7]),
        "is_fraud": np.array([True, True, True]),
        "amounts": np.array([2.0, 100.0, 2.0]),
        "days": np.zeros(3, dtype=int),
    }
    prices = Prices(review_fee=3.0, false_decline_goodwill=15.0)
    at = Thresholds(review=0.5, decline=0.95, min_review_amount=prices.review_fee)

    assert at.decide(rows["scores"], rows["amounts"]).tolist() == ["approve", "review", "approve"]
    assert price(at.decide(rows["scores"], rows["amounts"]), rows) == 2.0 + 3.0 + 2.0


def test_where_no_payment_is_risky_nothing_is_stopped():
    rows = {
        "scores": np.linspace(0.01, 0.02, 50),
        "is_fraud": np.zeros(50, dtype=bool),
        "amounts": np.full(50, 20.0),
        "days": np.arange(50) % 5,
    }

    at = choose_thresholds(**rows, prices=PRICES, daily_review_capacity=10)

    assert at.review == at.decline == ABOVE_ANY_SCORE


def test_dearer_goodwill_never_lowers_the_decline_threshold():
    generator = np.random.default_rng(0)
    scores = generator.random(2000) ** 3
    rows = {
        "scores": scores,
        "is_fraud": generator.random(2000) < scores,
        "amounts": generator.gamma(2.0, 30.0, 2000),
        "days": np.arange(2000) % 7,
    }

    declines = [
        choose_thresholds(**rows, prices=Prices(3.0, goodwill), daily_review_capacity=20).decline
        for goodwill in (5.0, 20.0, 80.0, 320.0)
    ]

    assert declines == sorted(declines)


def test_the_traced_costs_are_those_of_deciding_at_each_threshold():
    generator = np.random.default_rng(1)
    scores = generator.random(500) ** 2
    rows = {
        "scores": scores,
        "is_fraud": generator.random(500) < scores,
        "amounts": generator.gamma(2.0, 30.0, 500),
        "days": np.arange(500) % 5,
    }
    at = Thresholds(review=0.3, decline=0.7, min_review_amount=3.0)

    costs = trace_costs(**rows, prices=PRICES, thresholds=at, num_points=20)

    for point, threshold in enumerate(costs["thresholds"]):
        moved = Thresholds(threshold, max(threshold, at.decline), 3.0)
        expected = price(moved.decide(scores, rows["amounts"]), rows) / 5
        assert costs["moving_review"][point] == pytest.approx(expected)
        moved = Thresholds(min(threshold, at.review), threshold, 3.0)
        expected = price(moved.decide(scores, rows["amounts"]), rows) / 5
        assert costs["moving_decline"][point] == pytest.approx(expected)
    assert costs["approve_all"] == pytest.approx(rows["amounts"][rows["is_fraud"]].sum() / 5)
    assert costs["chosen"]["cost_per_day"] == pytest.approx(
        price(at.decide(scores, rows["amounts"]), rows) / 5
    )
