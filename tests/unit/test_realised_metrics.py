"""Realised metrics: weights as scikit-learn takes them, costs as decisions were taken."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from monitoring.realised_metrics import price_answers, resample_metrics
from training.bootstrap import draw_customers
from training.operating_point import Prices, Thresholds, measure_costs

PRICES = Prices(review_fee=3.0, false_decline_goodwill=15.0)
MONDAY = pd.Timestamp("2026-03-02", tz="UTC")


def make_known(rows: list[dict]) -> pd.DataFrame:
    """Answers with what is not named set to something plain; a ``is_fraud`` of None is unknown."""
    plain = {"score": 0.5, "decision": "approve", "amount": 80.0, "weight": 1.0, "is_fraud": False}
    known = pd.DataFrame([{**plain, "customer_id": f"c{i}", **row} for i, row in enumerate(rows)])
    known["is_fraud"] = known["is_fraud"].astype(object)
    return known.assign(event_time=MONDAY)


def measure(known: pd.DataFrame) -> dict[str, float]:
    bootstrap = draw_customers(known["customer_id"], num_resamples=1, seed=0)
    return {
        name: float(values[0])
        for name, values in resample_metrics(known, prices=PRICES, bootstrap=bootstrap).items()
    }


@pytest.fixture(scope="module")
def weighted() -> pd.DataFrame:
    """Outcomes of 3,000 payments of 500 customers; each tenth stands for 20."""
    generator = np.random.default_rng(0)
    scores = generator.beta(0.5, 6, 3000)
    return pd.DataFrame(
        {
            "customer_id": [f"c{i}" for i in generator.integers(0, 500, 3000)],
            "event_time": MONDAY
            + pd.to_timedelta(generator.integers(0, 5 * 86_400, 3000), unit="s"),
            "score": scores.round(3),
            "decision": "approve",
            "amount": generator.lognormal(3, 1, 3000),
            "weight": np.where(np.arange(3000) % 10 == 0, 20.0, 1.0),
            "is_fraud": (generator.random(3000) < scores).astype(object),
        }
    )


def test_weighted_numbers_are_those_of_scikit_learn(weighted):
    truth, scores, weights = (
        weighted["is_fraud"].astype(bool),
        weighted["score"],
        weighted["weight"],
    )
    found = measure(weighted)
    assert found["average_precision"] == pytest.approx(
        average_precision_score(truth, scores, sample_weight=weights)
    )
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights))
    assert found["brier_score"] == pytest.approx(
        brier_score_loss(truth, scores, sample_weight=weights)
    )
    assert found["fraud_ratio"] == pytest.approx((weights @ truth) / (weights @ scores))


def test_a_weight_of_two_is_the_row_twice(weighted):
    rows = weighted.assign(weight=1.0)
    once = measure(rows.assign(weight=np.where(rows.index < 500, 2.0, 1.0)))
    twice = measure(pd.concat([rows, rows[rows.index < 500]], ignore_index=True))
    for name in ("average_precision", "roc_auc", "brier_score", "fraud_ratio"):
        assert once[name] == pytest.approx(twice[name])


def test_costs_are_those_of_the_decisions_taken():
    known = make_known(
        [
            {"decision": "approve", "is_fraud": True, "amount": 80.0},
            {"decision": "review", "is_fraud": False},
            {"decision": "approve", "is_fraud": False},
        ]
    )
    assert price_answers(known, PRICES).tolist() == [80.0, 3.0, 0.0]
    assert measure(known)["cost_per_1000"] == pytest.approx(1000 * 83 / 3)


def test_a_declined_payment_is_priced_by_its_score_and_corrected_by_those_let_through():
    """Let through at a chance of 1/5, legitimate: 15 where 15 x 0.2 was assumed, four times."""
    known = make_known(
        [
            {"decision": "decline", "weight": 0.0, "is_fraud": None, "score": 0.9},
            {"decision": "review", "weight": 5.0, "is_fraud": False, "score": 0.8},
        ]
    )
    declined, let_through = price_answers(known, PRICES)
    assert declined == pytest.approx(15 * 0.1)
    assert let_through == pytest.approx(3 + 4 * (15 - 15 * 0.2))


def test_letting_a_share_through_gives_the_cost_of_all_on_average():
    """Whatever share of the outcomes is seen, and though the scores are much too high."""
    generator = np.random.default_rng(0)
    amounts, scores = generator.lognormal(4, 1, 400), generator.random(400)
    is_fraud = generator.random(400) < scores**2
    at = Thresholds(review=0.3, decline=0.7, min_review_amount=3.0)
    decisions = at.decide(scores, amounts)
    is_declined = decisions == "decline"
    truly = measure_costs(decisions, is_fraud=is_fraud, amounts=amounts, prices=PRICES)
    reviewed = measure_costs(
        np.where(is_declined, "review", decisions),
        is_fraud=is_fraud,
        amounts=amounts,
        prices=PRICES,
    )
    estimates, costs = [], []
    for _ in range(2000):
        is_seen = ~is_declined | (generator.random(400) < 0.1)
        known = pd.DataFrame(
            {
                "decision": np.where(is_declined & is_seen, "review", decisions),
                "is_fraud": np.where(is_seen, is_fraud.astype(object), None),
                "amount": amounts,
                "score": scores,
                "weight": np.where(is_declined, 10.0, 1.0) * is_seen,
            }
        )
        estimates.append(price_answers(known, PRICES).sum())
        costs.append(np.where(is_declined & is_seen, reviewed, truly).sum())
    assert np.mean(estimates) == pytest.approx(np.mean(costs), rel=0.01)


def test_without_weights_card_precision_counts_compromised_cards_by_hand():
    """Of 100 checks a day, two find a card: one day."""
    known = make_known([{"is_fraud": True}, {"is_fraud": True}, {"is_fraud": False}])
    assert measure(known)["card_precision_at_100"] == pytest.approx(2 / 100)


def test_a_card_found_behind_a_payment_let_through_stands_for_its_kind():
    known = make_known([{"is_fraud": True, "score": 0.9, "weight": 5.0}, {"is_fraud": False}])
    assert measure(known)["card_precision_at_100"] == pytest.approx(5 / 100)


def test_a_card_whose_riskiest_payment_was_declined_is_left_to_those_let_through():
    declined = {"decision": "decline", "weight": 0.0, "is_fraud": None, "score": 0.9}
    card = {"customer_id": "same"}
    hidden = make_known([{**declined, **card}, {"is_fraud": True, **card}, {"is_fraud": True}])
    assert measure(hidden)["card_precision_at_100"] == pytest.approx(1 / 100)


def test_the_answers_are_not_modified(weighted):
    before = weighted.copy()
    measure(weighted)
    pd.testing.assert_frame_equal(weighted, before)
