import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from training.calibration import IDENTITY, MIN_SLOPE, Calibration, fit_calibration
from training.metrics import average_precision, expected_calibration_error


def sigmoid(values):
    return 1.0 / (1.0 + np.exp(-values))


def make_overconfident(num_rows=20_000, seed=0):
    """Truths whose log-odds are half of what the model says, less one."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(-3.0, 2.0, num_rows)
    return margins, generator.random(num_rows) < sigmoid(0.5 * margins - 1.0)


def test_the_numbers_behind_the_truths_are_found():
    calibration = fit_calibration(*make_overconfident(num_rows=400_000))

    assert calibration.slope == pytest.approx(0.5, abs=0.02)
    assert calibration.offset == pytest.approx(-1.0, abs=0.05)


def test_with_many_rows_the_fit_is_scikit_learns_logistic_regression():
    margins, is_fraud = make_overconfident(num_rows=400_000)
    oracle = LogisticRegression(C=np.inf).fit(margins[:, None], is_fraud)

    calibration = fit_calibration(margins, is_fraud)

    assert calibration.slope == pytest.approx(oracle.coef_[0, 0], rel=0.02)
    assert calibration.offset == pytest.approx(oracle.intercept_[0], rel=0.03)


def test_calibration_error_falls_on_rows_it_was_not_fitted_on():
    calibration = fit_calibration(*make_overconfident(seed=1))
    margins, is_fraud = make_overconfident(seed=2)

    before = expected_calibration_error(is_fraud, IDENTITY.apply(margins))
    after = expected_calibration_error(is_fraud, calibration.apply(margins))

    assert after < 0.25 * before


def test_the_order_of_scores_and_average_precision_survive():
    margins, is_fraud = make_overconfident()
    calibration = fit_calibration(margins, is_fraud)

    scores = calibration.apply(margins)

    assert len(np.unique(scores)) == len(np.unique(margins))
    assert average_precision(is_fraud, scores) == average_precision(is_fraud, margins)


def test_a_model_that_ranks_backwards_is_flattened_not_turned_round():
    margins, is_fraud = make_overconfident()

    assert fit_calibration(-margins, is_fraud).slope == pytest.approx(MIN_SLOPE)


def test_perfectly_separated_rows_do_not_give_certainty():
    margins = np.array([-2.0, -1.0, 1.0, 2.0])
    is_fraud = margins > 0

    scores = fit_calibration(margins, is_fraud).apply(margins)

    assert scores.min() > 0.1
    assert scores.max() < 0.9


def test_one_unusual_week_moves_a_model_that_is_right_only_a_little():
    generator = np.random.default_rng(3)
    margins = generator.normal(-5.0, 1.5, 15_000)
    is_fraud = generator.random(15_000) < sigmoid(margins + 0.5)  # more fraud than usual
    free = LogisticRegression(C=np.inf).fit(margins[:, None], is_fraud)

    calibration = fit_calibration(margins, is_fraud)

    assert 0.0 < calibration.slope * -5.0 + calibration.offset + 5.0 < 0.35
    assert free.coef_[0, 0] * -5.0 + free.intercept_[0] + 5.0 > 0.4


def test_extreme_margins_stay_probabilities():
    scores = Calibration(slope=1.5, offset=0.2).apply(np.array([-1e6, -800.0, 800.0, 1e6]))

    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_slice_without_frauds_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="holds 0 frauds and 2 legitimate"):
        fit_calibration(np.zeros(2), np.zeros(2, dtype=bool))
