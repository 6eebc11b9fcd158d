import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from training.bootstrap import draw_customers
from training.encoding import Encoding
from training.evaluation import (
    MAX_CURVE_POINTS,
    compare_average_precision,
    evaluate_decisions,
    evaluate_parts,
    evaluate_scores,
    find_patterns,
    find_slices,
    score_baselines,
    trace_calibration,
    trace_precision_recall,
)
from training.operating_point import Prices, Thresholds
from training.rows import LabelledRows, check_both_classes

START = pd.Timestamp("2026-03-01", tz="UTC")
ENCODING = Encoding(("customer_tx_count_7d",), {})


def make_rows(num_rows=2000, seed=0):
    generator = np.random.default_rng(seed)
    is_fraud = generator.random(num_rows) < 0.05
    patterns = np.where(is_fraud, generator.choice(["burst", "ring"], num_rows), "")
    transactions = pd.DataFrame(
        {
            "transaction_id": [f"t{row}" for row in range(num_rows)],
            "event_time": START + pd.to_timedelta(np.arange(num_rows) * 5, unit="min"),
            "customer_id": generator.integers(0, 150, num_rows).astype(str),
            "card_type": generator.choice(["credit", "debit"], num_rows),
            "amount": generator.gamma(2.0, 20.0, num_rows),
            "is_fraud": is_fraud,
            "fraud_pattern": patterns,
        }
    )
    return LabelledRows(transactions, generator.integers(0, 4, (num_rows, 1)).astype(float))


def score(rows, *, strength=0.3, seed=1):
    noise = np.random.default_rng(seed).random(len(rows))
    return np.clip(0.7 * noise + strength * rows.is_fraud, 0.001, 0.999)


def draw(rows):
    return draw_customers(rows.transactions["customer_id"], num_resamples=100, seed=0)


def test_every_metric_lies_inside_its_interval():
    rows = make_rows()
    metrics = evaluate_scores(rows, score(rows), bootstrap=draw(rows))

    names = [name for name in metrics if not name.endswith("_interval")]

    assert names == [
        "average_precision",
        "roc_auc",
        "recall_at_low_fpr",
        "card_precision_at_100",
        "brier_score",
        "expected_calibration_error",
    ]
    for name in names:
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high


def test_a_pattern_is_measured_against_all_legitimate_rows():
    rows = make_rows()
    scores = score(rows)
    patterns = rows.transactions["fraud_pattern"]
    ring = ~rows.is_fraud | (patterns == "ring").to_numpy()

    found = evaluate_parts(rows, scores, parts=find_patterns(rows), bootstrap=draw(rows))

    assert list(found) == ["burst", "ring"]
    assert found["ring"]["frauds"] == (patterns == "ring").sum()
    assert found["ring"]["average_precision"] == pytest.approx(
        average_precision_score(rows.is_fraud[ring], scores[ring])
    )


def test_truths_without_patterns_have_none():
    rows = make_rows()
    unnamed = LabelledRows(rows.transactions.assign(fraud_pattern=""), rows.matrix)

    assert find_patterns(unnamed) == {}


def test_a_part_without_frauds_is_counted_and_not_judged():
    rows = make_rows()
    parts = {"nobody": np.zeros(len(rows), dtype=bool), "honest": ~rows.is_fraud}

    found = evaluate_parts(rows, score(rows), parts=parts, bootstrap=draw(rows))

    assert found["nobody"] == {"transactions": 0, "frauds": 0}
    assert found["honest"] == {"transactions": int((~rows.is_fraud).sum()), "frauds": 0}


def test_a_handful_of_frauds_gets_no_interval():
    rows = make_rows()
    few = ~rows.is_fraud
    few[np.flatnonzero(rows.is_fraud)[:3]] = True

    found = evaluate_parts(rows, score(rows), parts={"few": few}, bootstrap=draw(rows))

    assert "average_precision" in found["few"]
    assert "average_precision_interval" not in found["few"]


def test_slices_are_card_types_new_customers_and_customers_without_a_known_fraud():
    rows = make_rows(num_rows=4)
    transactions = rows.transactions.assign(
        customer_id=["a", "b", "a", "c"], card_type=["credit", "debit", None, "credit"]
    )
    rows = LabelledRows(transactions, np.array([[0.0], [1.0], [0.0], [5.0]]))
    second = transactions["event_time"].iloc[1]
    reports = pd.DataFrame({"customer_id": ["a", "c"], "label_time": [second, second + 9 * DAY]})

    slices = find_slices(rows, encoding=ENCODING, known_frauds=reports)

    assert {name: rows.tolist() for name, rows in slices.items()} == {
        "no_known_fraud": [True, True, False, True],
        "new_customers": [True, False, True, False],
        "card_type=credit": [True, False, False, True],
        "card_type=debit": [False, True, False, False],
    }


DAY = pd.Timedelta(days=1)


def test_a_better_model_gains_and_an_equal_one_does_not():
    rows = make_rows()
    good, bad = score(rows, strength=0.5), score(rows, strength=0.1)

    found = compare_average_precision(
        rows, {"good": good, "same": good.copy(), "bad": bad}, bootstrap=draw(rows)
    )

    assert found["same"] == {
        "average_precision_gain": 0.0,
        "average_precision_gain_interval": [0.0, 0.0],
    }
    assert found["bad"]["average_precision_gain_interval"][0] > 0


def test_the_amount_rule_ranks_by_amount_and_the_constant_does_not_rank():
    train, test = make_rows(seed=0), make_rows(seed=1)
    large = train.transactions["amount"] > train.transactions["amount"].quantile(0.9)
    train = LabelledRows(train.transactions.assign(is_fraud=large), train.matrix)

    scores = score_baselines(test, train=train)

    assert set(scores["constant"]) == {train.is_fraud.mean()}
    np.testing.assert_array_equal(np.argsort(scores["amount_rule"]), np.argsort(test.amounts))


def test_decisions_are_priced_per_day_beside_approving_everything():
    transactions = pd.DataFrame(
        {
            "event_time": [START, START, START + DAY, START + DAY],
            "amount": [100.0, 50.0, 40.0, 10.0],
            "is_fraud": [True, True, False, False],
        }
    )
    found = evaluate_decisions(
        LabelledRows(transactions, np.zeros((4, 0))),
        np.array([0.95, 0.05, 0.5, 0.9]),
        thresholds=Thresholds(review=0.4, decline=0.9, min_review_amount=3.0),
        prices=Prices(review_fee=3.0, false_decline_goodwill=15.0),
        daily_review_capacity=0,
    )

    assert found["cost_per_day"] == (0 + 50 + 3 + 15) / 2
    assert found["cost_per_day_approving_all"] == 150 / 2
    assert (found["reviews_per_day"], found["declines_per_day"]) == (0.5, 1.0)
    assert found["days_over_review_capacity"] == 1
    assert found["frauds_stopped_share"] == 0.5
    assert found["fraud_amount_stopped_share"] == 100 / 150


def test_the_precision_recall_curve_passes_through_scikit_learns_points():
    rows = make_rows(num_rows=400)
    scores = np.round(score(rows), 2)
    precision, recall, _ = precision_recall_curve(rows.is_fraud, scores)
    expected = set(zip(recall.round(9), precision.round(9), strict=True))

    curve = trace_precision_recall(rows.is_fraud, scores)

    assert curve["recall"] == sorted(curve["recall"])
    assert curve["recall"][-1] == 1.0
    points = np.column_stack([curve["recall"], curve["precision"]]).round(9)
    assert {tuple(point) for point in points.tolist()} <= expected


def test_a_long_curve_is_thinned_and_keeps_its_end():
    rows = make_rows(num_rows=30_000)

    curve = trace_precision_recall(rows.is_fraud, score(rows))

    assert len(curve["recall"]) == len(curve["precision"]) == MAX_CURVE_POINTS
    assert curve["recall"][-1] == 1.0


def test_honest_probabilities_lie_on_the_diagonal():
    generator = np.random.default_rng(0)
    scores = generator.beta(0.5, 20.0, 200_000)

    curve = trace_calibration(generator.random(200_000) < scores, scores)

    assert curve["probability"] == sorted(curve["probability"])
    np.testing.assert_allclose(curve["fraud_share"], curve["probability"], rtol=0.15)


def test_a_slice_without_frauds_is_an_error_that_names_it():
    rows = make_rows()

    with pytest.raises(ValueError, match="the test slice holds 0 frauds among"):
        check_both_classes(rows.take(~rows.is_fraud), name="test")
