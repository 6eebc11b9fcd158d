import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from training.metrics import (
    MAX_FALSE_POSITIVE_RATE,
    average_precision,
    brier_score,
    card_precision,
    expected_calibration_error,
    find_calibration_bins,
    rank_cards,
    recall_at_low_fpr,
    roc_auc,
)

START = pd.Timestamp("2026-01-01", tz="UTC")


@st.composite
def draw_labelled_scores(draw):
    """Few distinct scores, so that ties are common; both classes present."""
    rows = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
    is_fraud = np.array([truth for truth, _ in rows])
    is_fraud[:2] = True, False
    return is_fraud, np.array([level / 6 for _, level in rows])


def make_world(num_rows=20_000, share=0.01, seed=0):
    generator = np.random.default_rng(seed)
    return generator.random(num_rows) < share, generator.random(num_rows)


@given(draw_labelled_scores())
def test_average_precision_is_scikit_learns(labelled):
    is_fraud, scores = labelled

    assert average_precision(is_fraud, scores) == pytest.approx(
        average_precision_score(is_fraud, scores)
    )


@given(draw_labelled_scores())
def test_roc_auc_is_scikit_learns(labelled):
    is_fraud, scores = labelled

    assert roc_auc(is_fraud, scores) == pytest.approx(roc_auc_score(is_fraud, scores))


def test_recall_at_low_fpr_is_read_off_scikit_learns_curve():
    is_fraud, noise = make_world()
    scores = np.round(noise + 0.5 * is_fraud, 2)
    rates, recalls, _ = roc_curve(is_fraud, scores, drop_intermediate=False)

    expected = recalls[rates <= MAX_FALSE_POSITIVE_RATE].max()

    assert 0 < expected < 1
    assert recall_at_low_fpr(is_fraud, scores) == pytest.approx(expected)


def test_brier_score_is_scikit_learns():
    is_fraud, scores = make_world()

    assert brier_score(is_fraud, scores) == pytest.approx(brier_score_loss(is_fraud, scores))


def test_a_perfect_order_gives_one():
    is_fraud, _ = make_world()
    scores = is_fraud * 0.5 + 0.25

    assert average_precision(is_fraud, scores) == 1.0
    assert roc_auc(is_fraud, scores) == 1.0
    assert recall_at_low_fpr(is_fraud, scores) == 1.0


def test_an_inverted_order_gives_the_least_there_is():
    is_fraud, _ = make_world()
    scores = 1.0 - is_fraud

    assert roc_auc(is_fraud, scores) == 0.0
    assert average_precision(is_fraud, scores) == pytest.approx(is_fraud.mean())
    assert recall_at_low_fpr(is_fraud, scores) == 0.0


def test_a_constant_score_earns_chance():
    is_fraud, _ = make_world()
    scores = np.full(len(is_fraud), 0.3)

    assert average_precision(is_fraud, scores) == pytest.approx(is_fraud.mean())
    assert roc_auc(is_fraud, scores) == 0.5
    assert recall_at_low_fpr(is_fraud, scores) == 0.0


def test_random_scores_earn_about_chance():
    is_fraud, scores = make_world(num_rows=200_000)

    assert average_precision(is_fraud, scores) == pytest.approx(is_fraud.mean(), rel=0.1)
    assert roc_auc(is_fraud, scores) == pytest.approx(0.5, abs=0.02)
    assert recall_at_low_fpr(is_fraud, scores) < 0.005


def test_rank_metrics_do_not_change_under_an_increasing_transformation():
    is_fraud, noise = make_world()
    scores = np.round(noise + 0.3 * is_fraud, 3)

    for metric in (average_precision, roc_auc, recall_at_low_fpr):
        assert metric(is_fraud, np.exp(3 * scores)) == metric(is_fraud, scores)


def test_without_frauds_rank_metrics_are_nan():
    scores = np.array([0.1, 0.2])

    for metric in (average_precision, roc_auc, recall_at_low_fpr):
        assert np.isnan(metric(np.zeros(2, dtype=bool), scores))


def test_a_probability_that_is_right_on_average_in_every_bin_has_no_calibration_error():
    is_fraud = np.tile([True, False, False, False], 500)

    assert expected_calibration_error(is_fraud, np.full(2000, 0.25)) == pytest.approx(0.0)


def test_calibration_error_is_the_weighted_gap_between_probability_and_share():
    # two bins of equal size: shares 0 and 1/2, probabilities 0.1 (too high) and 0.2 (too low)
    is_fraud = np.array([False] * 100 + [True, False] * 50)
    scores = np.array([0.1] * 100 + [0.2] * 100)

    assert expected_calibration_error(is_fraud, scores) == pytest.approx((0.1 + 0.3) / 2)


def test_calibration_bins_hold_about_as_many_rows_each():
    scores = np.random.default_rng(0).random(15_000) ** 20  # nearly all close to 0

    assert np.bincount(find_calibration_bins(scores)).tolist() == [1000] * 15


def measure_card_precision(is_fraud, scores, customers, days, *, checked, multiplicity=None):
    codes = np.array(customers)
    weights = np.ones((1, codes.max() + 1)) if multiplicity is None else multiplicity
    ranked = rank_cards(
        np.array(is_fraud),
        np.array(scores),
        customer_codes=codes,
        event_time=pd.Series([START + pd.Timedelta(days=day, hours=9) for day in days]),
    )
    return card_precision(ranked, cards_checked=checked, multiplicity=weights)


def test_card_precision_by_hand():
    # day 0: cards 0 (fraud) and 1 are checked; day 1: card 0 is blocked, so 2 (fraud) and 1 are
    precision = measure_card_precision(
        is_fraud=[True, False, False, True, False, True],
        scores=[0.9, 0.8, 0.1, 0.9, 0.2, 0.3],
        customers=[0, 1, 2, 0, 1, 2],
        days=[0, 0, 0, 1, 1, 1],
        checked=2,
    )

    assert precision.tolist() == [0.5]


def test_a_card_is_ranked_by_its_riskiest_transaction_and_counted_once():
    precision = measure_card_precision(
        is_fraud=[False, True, False],
        scores=[0.9, 0.1, 0.5],
        customers=[0, 0, 1],
        days=[0, 0, 0],
        checked=1,
    )

    assert precision.tolist() == [1.0]


def test_checking_more_cards_than_there_are_wastes_the_rest_of_the_day():
    precision = measure_card_precision([True], [0.5], [0], [0], checked=100)

    assert precision.tolist() == [0.01]


def test_card_precision_is_the_handbooks():
    generator = np.random.default_rng(3)
    num_rows = 3000
    rows = pd.DataFrame(
        {
            "TX_TIME_DAYS": generator.integers(0, 7, num_rows),
            "CUSTOMER_ID": generator.integers(0, 120, num_rows),
            "TX_FRAUD": generator.random(num_rows) < 0.05,
            "predictions": generator.random(num_rows),
        }
    ).sort_values("TX_TIME_DAYS")

    # transcribed from the Fraud Detection Handbook, chapter 4, card_precision_top_k
    caught, daily = [], []
    for _, day in rows.groupby("TX_TIME_DAYS"):
        remaining = day[~day["CUSTOMER_ID"].isin(caught)]
        cards = remaining.groupby("CUSTOMER_ID").max().sort_values("predictions", ascending=False)
        found = cards.head(10)
        found = found[found["TX_FRAUD"]].index.to_list()
        caught += found
        daily.append(len(found) / 10)

    precision = measure_card_precision(
        rows["TX_FRAUD"], rows["predictions"], rows["CUSTOMER_ID"], rows["TX_TIME_DAYS"], checked=10
    )

    assert precision[0] == pytest.approx(np.mean(daily))


def test_a_customer_drawn_twice_counts_as_two_cards():
    rows = {
        "is_fraud": [True, False, True],
        "scores": [0.9, 0.8, 0.7],
        "customers": [0, 1, 2],
        "days": [0, 0, 0],
    }

    resampled = measure_card_precision(
        **rows, checked=2, multiplicity=np.array([[1, 1, 1], [2, 1, 0], [0, 1, 2], [0, 2, 1]])
    )

    assert resampled.tolist() == [0.5, 1.0, 0.5, 0.0]
