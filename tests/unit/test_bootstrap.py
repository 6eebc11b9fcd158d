from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training.bootstrap import (
    draw_customers,
    find_interval,
    resample_card_precision,
    resample_mean,
    resample_probabilities,
    resample_ranks,
)
from training.metrics import (
    average_precision,
    brier_score,
    expected_calibration_error,
    recall_at_low_fpr,
    roc_auc,
)

START = pd.Timestamp("2026-01-01", tz="UTC")


def make_world(num_rows=600, num_customers=80, seed=0):
    generator = np.random.default_rng(seed)
    customers = pd.Series(generator.integers(0, num_customers, num_rows)).map("c{}".format)
    is_fraud = generator.random(num_rows) < 0.1
    scores = np.round(np.clip(generator.random(num_rows) * 0.7 + 0.3 * is_fraud, 0, 1), 2)
    return is_fraud, scores, customers


def repeat_rows(multiplicity, bootstrap):
    """Write a resample out row by row, as the definition has it."""
    return np.repeat(
        np.arange(len(bootstrap.customer_codes)),
        multiplicity[bootstrap.customer_codes].astype(int),
    )


def test_the_first_column_is_the_plain_metric():
    is_fraud, scores, customers = make_world()
    bootstrap = draw_customers(customers, num_resamples=3, seed=0)

    ranks = resample_ranks(is_fraud, scores, bootstrap=bootstrap)
    probabilities = resample_probabilities(is_fraud, scores, bootstrap=bootstrap)

    for metric in (average_precision, roc_auc, recall_at_low_fpr):
        assert ranks[metric.__name__][0] == pytest.approx(metric(is_fraud, scores))
    for metric in (brier_score, expected_calibration_error):
        assert probabilities[metric.__name__][0] == pytest.approx(metric(is_fraud, scores))


def test_a_resample_is_the_metric_of_the_customers_drawn_written_out_row_by_row():
    is_fraud, scores, customers = make_world()
    bootstrap = draw_customers(customers, num_resamples=5, seed=1)
    ranks = resample_ranks(is_fraud, scores, bootstrap=bootstrap)
    probabilities = resample_probabilities(is_fraud, scores, bootstrap=bootstrap)

    for column in range(6):
        rows = repeat_rows(bootstrap.multiplicity[column], bootstrap)
        truth, values = is_fraud[rows], scores[rows]
        assert ranks["average_precision"][column] == pytest.approx(
            average_precision_score(truth, values)
        )
        assert ranks["roc_auc"][column] == pytest.approx(roc_auc_score(truth, values))
        assert probabilities["brier_score"][column] == pytest.approx(brier_score(truth, values))


def test_card_precision_is_resampled_too():
    is_fraud, scores, customers = make_world()
    bootstrap = draw_customers(customers, num_resamples=20, seed=1)
    event_time = pd.Series(START + pd.to_timedelta(np.arange(600) // 100, unit="D"))

    values = resample_card_precision(
        is_fraud, scores, event_time=event_time, bootstrap=bootstrap, cards_checked=10
    )

    assert values.shape == (21,)
    assert 0 < values.std() < 0.2


def test_a_customer_keeps_all_its_transactions():
    bootstrap = draw_customers(pd.Series(["a", "b", "a", "c"]), num_resamples=50, seed=2)

    assert bootstrap.customer_codes.tolist() == [0, 1, 0, 2]
    assert (bootstrap.multiplicity.sum(axis=1) == 3).all()


def test_the_same_seed_draws_the_same_customers():
    customers = pd.Series(["a", "b", "c"])

    first, again = (draw_customers(customers, num_resamples=9, seed=4) for _ in range(2))

    np.testing.assert_array_equal(first.multiplicity, again.multiplicity)


def test_taking_rows_keeps_the_draws():
    is_fraud, scores, customers = make_world()
    bootstrap = draw_customers(customers, num_resamples=4, seed=1)
    part = scores < 0.6

    values = resample_ranks(is_fraud[part], scores[part], bootstrap=bootstrap.take(part))
    rows = repeat_rows(bootstrap.multiplicity[2], bootstrap)
    rows = rows[part[rows]]

    assert values["roc_auc"][2] == pytest.approx(roc_auc_score(is_fraud[rows], scores[rows]))


def test_the_interval_of_a_mean_has_the_width_statistics_gives_it():
    # the Brier score of a constant 0 is the share of frauds: one row per customer, so binomial
    num_rows, share = 4000, 0.2
    is_fraud = np.arange(num_rows) < share * num_rows
    customers = pd.Series(np.arange(num_rows).astype(str))
    bootstrap = draw_customers(customers, num_resamples=2000, seed=0)

    values = resample_probabilities(is_fraud, np.zeros(num_rows), bootstrap=bootstrap)
    low, high = find_interval(values["brier_score"])

    half_width = 1.96 * np.sqrt(share * (1 - share) / num_rows)
    assert low == pytest.approx(share - half_width, abs=0.0015)
    assert high == pytest.approx(share + half_width, abs=0.0015)


def test_bursts_of_one_customer_make_the_interval_wider():
    is_fraud = np.repeat(np.arange(200) < 40, 20)  # 200 customers, 20 alike transactions each
    alone = pd.Series(np.arange(4000).astype(str))
    clustered = pd.Series(np.repeat(np.arange(200), 20).astype(str))

    def width(customers):
        bootstrap = draw_customers(customers, num_resamples=500, seed=0)
        values = resample_probabilities(is_fraud, np.zeros(4000), bootstrap=bootstrap)
        low, high = find_interval(values["brier_score"])
        return high - low

    assert width(clustered) == pytest.approx(width(alone) * np.sqrt(20), rel=0.2)


def test_a_weight_of_two_is_the_row_twice_on_every_resample():
    is_fraud, scores, customers = make_world()
    bootstrap = draw_customers(customers, num_resamples=4, seed=2)
    weights = np.where(np.arange(len(scores)) < 200, 2.0, 1.0)
    rows = np.repeat(np.arange(len(scores)), weights.astype(int))
    twice = replace(bootstrap, customer_codes=bootstrap.customer_codes[rows])

    weighted = resample_ranks(is_fraud, scores, bootstrap=bootstrap, weights=weights)
    repeated = resample_ranks(is_fraud[rows], scores[rows], bootstrap=twice)
    for name in weighted:
        assert weighted[name] == pytest.approx(repeated[name])
    weighted = resample_probabilities(is_fraud, scores, bootstrap=bootstrap, weights=weights)
    repeated = resample_probabilities(is_fraud[rows], scores[rows], bootstrap=twice)
    assert weighted["brier_score"] == pytest.approx(repeated["brier_score"])


def test_a_mean_on_a_resample_is_that_of_the_customers_drawn():
    _, scores, customers = make_world()
    bootstrap = draw_customers(customers, num_resamples=3, seed=3)
    means = resample_mean(scores, bootstrap=bootstrap)
    for column in range(4):
        rows = repeat_rows(bootstrap.multiplicity[column], bootstrap)
        assert means[column] == pytest.approx(scores[rows].mean())
