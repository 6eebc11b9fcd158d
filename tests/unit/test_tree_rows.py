"""LightGBM row by row, held against the package's own ``predict``."""

import gc
import threading

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.encoding import Encoding
from training.gbdt import fit_trees
from training.scorers import MAX_ROWS_ONE_BY_ONE, TreeScorer
from training.tree_rows import TreeRows

ENCODING = Encoding(("amount", "gap", "count", "card_type"), {"card_type": ("a", "b", "c", "d")})
TREES = {"num_trees": 40, "num_leaves": 15, "min_data_in_leaf": 5, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def content():
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(2_000, 4))
    matrix[:, 3] = generator.integers(0, 4, 2_000)
    matrix[generator.random(matrix.shape) < 0.2] = np.nan
    odds = np.nan_to_num(matrix[:, 0]) + (matrix[:, 3] == 2) - np.nan_to_num(matrix[:, 1]) ** 2
    is_fraud = odds + generator.normal(size=2_000) > 0.5
    return fit_trees(matrix, is_fraud, encoding=ENCODING, parameters=TREES, seed=0)


@pytest.fixture(scope="module")
def booster(content):
    return lightgbm.Booster(model_str=content.decode())


@pytest.fixture(scope="module")
def rows(content):
    return TreeRows(content, num_features=4)


def to_bits(margins):
    return margins.view(np.int64).tolist()


VALUES = st.floats(width=64) | st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 1e300, np.nan])


@settings(max_examples=300, deadline=None)
@given(matrix=arrays(np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=VALUES))
def test_margins_are_predicts_bit_by_bit_whatever_the_row(rows, booster, matrix):
    expected = booster.predict(matrix, raw_score=True)
    assert to_bits(rows.margins(matrix)) == to_bits(expected)


@pytest.mark.parametrize("num_rows", [1, MAX_ROWS_ONE_BY_ONE, MAX_ROWS_ONE_BY_ONE + 1, 500])
def test_a_scorer_gives_the_same_margins_on_both_sides_of_its_limit(content, booster, num_rows):
    matrix = np.random.default_rng(1).normal(size=(num_rows, 4))
    expected = booster.predict(matrix, raw_score=True)
    assert to_bits(TreeScorer(content).margins(matrix)) == to_bits(expected)


def test_rows_that_do_not_lie_side_by_side_in_memory_are_read_right(rows, booster):
    wide = np.random.default_rng(2).normal(size=(6, 8))
    for matrix in (wide[:, ::2], wide[::2, :4], np.asfortranarray(wide[:, :4])):
        assert to_bits(rows.margins(matrix)) == to_bits(booster.predict(matrix, raw_score=True))


def test_no_rows_have_no_margins(rows):
    assert rows.margins(np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5), (4,)])
def test_rows_of_another_width_are_an_error_and_not_read(rows, shape):
    with pytest.raises(ValueError, match="the model reads 4 columns"):
        rows.margins(np.zeros(shape))


def test_what_is_no_model_is_an_error(capfd):
    with pytest.raises(ValueError, match="LightGBM: "):
        TreeRows(b"nonsense", num_features=4)
    capfd.readouterr()  # LightGBM says it too


def test_two_models_do_not_mix_and_one_outlives_the_other(content, rows, booster):
    matrix = np.random.default_rng(3).normal(size=(5, 4))

    other = TreeRows(content, num_features=4)
    assert to_bits(other.margins(matrix)) == to_bits(rows.margins(matrix))
    del other
    gc.collect()
    assert to_bits(rows.margins(matrix)) == to_bits(booster.predict(matrix, raw_score=True))


def test_threads_that_share_a_model_get_their_own_rows_margins(rows, booster):
    matrix = np.random.default_rng(4).normal(size=(400, 4))
    expected = to_bits(booster.predict(matrix, raw_score=True))
    wrong: list[int] = []

    def score(start: int) -> None:
        for _ in range(200):
            for first in range(start, 400, 40):
                found = to_bits(rows.margins(matrix[first : first + 10]))
                if found != expected[first : first + 10]:
                    wrong.append(first)

    threads = [threading.Thread(target=score, args=(start,)) for start in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
