"""What five values say about a sixth, alone and with the company of other columns."""

import numpy as np
import pytest
from scipy.stats import t as student_t

from monitoring.prediction_limits import (
    MAX_PRIOR_FREEDOM,
    VariancePrior,
    find_prediction_limit,
    fit_variance_prior,
    measure_variance,
)


def test_the_limit_is_exceeded_as_often_as_stated():
    generator = np.random.default_rng(1)
    exceeded = 0
    for _ in range(4000):
        *seen, new = generator.normal(-3, 0.4, 11)
        limit = find_prediction_limit(np.array(seen), num_independent=10, exceeded_share=0.05)
        exceeded += new > limit
    assert exceeded / 4000 == pytest.approx(0.05, abs=0.01)


def test_the_limit_follows_the_textbook_formula():
    seen = np.array([2.0, 3.0, 4.0, 5.0, 6.0])
    by_hand = seen.mean() + student_t.ppf(0.99, 4) * seen.std(ddof=1) * np.sqrt(6 / 5)
    limit = find_prediction_limit(seen, num_independent=5, exceeded_share=0.01)
    assert limit == pytest.approx(by_hand)


def test_fewer_than_five_values_give_no_limit():
    assert find_prediction_limit(np.ones(4), num_independent=4, exceeded_share=0.01) is None


def test_a_prior_is_worth_the_observations_it_says():
    """Four degrees of freedom at variance 2.5, and four at 0.5: eight at 1.5."""
    seen = np.array([2.0, 3.0, 4.0, 5.0, 6.0])
    limit = find_prediction_limit(
        seen, num_independent=5, exceeded_share=0.01, prior=VariancePrior(0.5, freedom=4.0)
    )
    by_hand = seen.mean() + student_t.ppf(0.99, 8) * np.sqrt(1.5 * 6 / 5)
    assert limit == pytest.approx(by_hand)


def simulate_variances(generator, *, spread: float, num_columns: int = 400) -> list[float]:
    """Variances of five values per column, whose true ones differ by ``spread`` in logarithm."""
    stds = 0.3 * np.exp(generator.normal(0, spread, num_columns) / 2)
    rows = generator.normal(size=(num_columns, 5)) * stds[:, None]
    return [measure_variance(row, num_independent=5) for row in rows]


def test_columns_that_vary_alike_lend_each_other_all_the_weight_allowed():
    prior = fit_variance_prior(
        simulate_variances(np.random.default_rng(0), spread=0.0), num_independent=5
    )
    assert prior is not None
    assert prior.freedom == MAX_PRIOR_FREEDOM
    assert prior.variance == pytest.approx(0.09, rel=0.1)


def test_columns_that_vary_each_in_its_own_way_lend_each_other_little():
    prior = fit_variance_prior(
        simulate_variances(np.random.default_rng(0), spread=2.0), num_independent=5
    )
    assert prior is not None
    assert prior.freedom < 3


def test_the_limit_with_a_fitted_prior_is_exceeded_as_often_as_stated():
    generator = np.random.default_rng(2)
    stds = 0.3 * np.exp(generator.normal(0, 0.3, 3000))
    rows = generator.normal(size=(3000, 6)) * stds[:, None]
    variances = [measure_variance(row[:5], num_independent=5) for row in rows]
    prior = fit_variance_prior(variances, num_independent=5)
    limits = [
        find_prediction_limit(row[:5], num_independent=5, exceeded_share=0.02, prior=prior)
        for row in rows
    ]
    assert np.mean(rows[:, 5] > np.array(limits)) == pytest.approx(0.02, abs=0.008)


def test_columns_that_stood_still_say_nothing_about_the_others():
    assert fit_variance_prior([0.0, 0.0, 0.0, 1.0, 2.0], num_independent=5) is None
