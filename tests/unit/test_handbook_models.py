"""One fit of many trees answers for fewer."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from training.handbook_models import make_xgboost, score_settings


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(400, 3))
    return inputs, inputs[:, 0] + 0.5 * generator.normal(size=400) > 1


def make_forest(num_trees):
    return lambda: RandomForestClassifier(num_trees, max_depth=4, random_state=0)


def make_boosted(num_trees):
    return lambda: make_xgboost(n_estimators=num_trees, learning_rate=0.3, max_depth=3)


@pytest.mark.parametrize("make", [make_forest, make_boosted])
def test_the_first_trees_of_a_large_model_are_the_small_model(rows, make):
    inputs, is_fraud = rows
    many = score_settings(make(12), (5, 12), train=(inputs, is_fraud), test_matrix=inputs)
    few = score_settings(make(5), (), train=(inputs, is_fraud), test_matrix=inputs)
    np.testing.assert_allclose(many["5 trees, "], few[""], rtol=1e-6)
    assert not np.allclose(many["12 trees, "], few[""])


def test_a_missing_xgboost_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    with pytest.raises(ValueError, match="install xgboost-cpu"):
        make_xgboost()
