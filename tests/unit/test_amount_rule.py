import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.amount_rule import AmountRule, choose_amount_rule
from training.operating_point import Prices, measure_costs

PRICES = Prices(review_fee=3.0, false_decline_goodwill=15.0)


def choose(amounts, is_fraud, *, days=None, capacity=100, prices=PRICES):
    days = np.zeros(len(amounts), np.int64) if days is None else np.array(days)
    return choose_amount_rule(
        np.array(amounts, float),
        is_fraud=np.array(is_fraud, bool),
        days=days,
        prices=prices,
        daily_review_capacity=capacity,
    )


def test_the_threshold_lies_where_reviews_stop_paying():
    rule = choose([10, 20, 300, 400, 500], [0, 0, 1, 0, 1])
    assert (rule.threshold, rule.decision) == (300.0, "review")


def test_scores_are_the_shares_of_frauds_that_were_seen_on_either_side():
    rule = choose([1, 2, 3, 300, 400, 500], [0, 1, 0, 1, 0, 1])
    assert rule.threshold == 300.0
    assert rule.scores(np.array([299.99, 300.0])).tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize(("capacity", "threshold"), [(3, 300.0), (2, 400.0)])
def test_a_day_with_too_many_reviews_raises_the_threshold(capacity, threshold):
    never_decline = Prices(review_fee=3.0, false_decline_goodwill=1e9)
    rule = choose(
        [500, 400, 300, 200],
        [0, 1, 1, 0],
        days=[1, 1, 1, 2],
        capacity=capacity,
        prices=never_decline,
    )
    assert (rule.threshold, rule.decision) == (threshold, "review")


def test_sure_frauds_are_declined_for_that_costs_nothing():
    assert choose([10, 900, 950], [0, 1, 1]).decision == "decline"


def test_where_no_threshold_pays_everything_is_approved_and_the_shares_still_hold():
    rule = choose([1, 2, 500], [1, 0, 0])
    assert rule.decision == "approve"
    assert rule.decide(np.array([1.0, 1e6])).tolist() == ["approve", "approve"]
    assert 0 <= rule.share_above <= 1


def test_equal_amounts_fall_on_the_same_side():
    rule = choose([100, 100, 100, 5], [1, 0, 1, 0])
    assert rule.threshold == 100.0
    assert rule.share_above == pytest.approx(2 / 3)


ROWS = st.lists(
    st.tuples(st.integers(0, 30), st.booleans(), st.integers(0, 2)), min_size=1, max_size=9
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, capacity=st.integers(1, 4))
def test_no_other_threshold_or_decision_would_have_been_cheaper(rows, capacity):
    amounts, is_fraud, days = (np.array(column) for column in zip(*rows, strict=True))
    amounts = amounts.astype(float)
    rule = choose(amounts, is_fraud, days=days, capacity=capacity)

    def price(other: AmountRule) -> float:
        decisions = other.decide(amounts)
        costs = measure_costs(decisions, is_fraud=is_fraud, amounts=amounts, prices=PRICES)
        reviews = np.bincount(days[decisions == "review"], minlength=3)
        return np.inf if reviews.max() > capacity else float(costs.sum())

    others = [
        AmountRule(threshold, decision, 0.0, 0.0)
        for threshold in amounts
        for decision in ("approve", "review", "decline")
    ]
    assert price(rule) == pytest.approx(min(map(price, others)))
    is_large = amounts >= rule.threshold
    assert rule.share_above == is_fraud[is_large].mean()
    assert rule.share_below == (is_fraud[~is_large].mean() if (~is_large).any() else 0.0)
