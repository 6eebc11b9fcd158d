import numpy as np
import pytest

from training.blend import judge_folds, weigh_margins
from training.gbdt import FoldRows


def make_fold(*is_fraud):
    nothing = np.zeros((0, 1))
    truth = np.array(is_fraud, bool)
    return FoldRows(nothing, np.zeros(0, bool), np.zeros((len(truth), 1)), truth)


# the fraud is ranked last by one model and first by the other: average precision 1/3 or 1
FOLD = make_fold(1, 0, 0)
WRONG, RIGHT = np.array([-1.0, 0.0, 1.0]), np.array([1.0, 0.0, -1.0])


@pytest.mark.parametrize(
    ("trees", "network", "weight"), [(RIGHT, WRONG, 0.75), (WRONG, RIGHT, 0.0)]
)
def test_the_weight_goes_to_the_model_that_ranks_right(trees, network, weight):
    found = weigh_margins([FOLD], [trees], [network])
    assert found.tree_weight == weight  # the first of equally good ones
    assert found.average_precisions == (1.0,)
    np.testing.assert_allclose(found.fold_margins[0], weight * trees + (1 - weight) * network)


def test_models_that_err_on_different_rows_are_better_together():
    fold = make_fold(1, 1, 0, 0)
    trees, network = np.array([4.0, 0.0, 1.0, -1.0]), np.array([0.0, 4.0, -1.0, 1.0])
    found = weigh_margins([fold], [trees], [network])
    assert found.tree_weight == 0.25
    assert found.weight_scores[2] == 1.0
    assert found.weight_scores[0] < 1.0
    assert found.weight_scores[-1] < 1.0


def test_a_fold_is_judged_at_the_weight_the_other_folds_would_choose():
    folds = [FOLD, FOLD]
    found = weigh_margins(folds, [RIGHT, WRONG], [WRONG, RIGHT], weights=(0.0, 1.0))
    assert found.average_precisions == pytest.approx((1 / 3, 1 / 3))  # each misled by the other
    assert found.weight_scores == pytest.approx((2 / 3, 2 / 3))


def test_a_single_weight_is_no_choice():
    found = weigh_margins([FOLD, FOLD], [RIGHT, WRONG], [WRONG, RIGHT], weights=(1.0,))
    assert found.tree_weight == 1.0
    assert found.average_precisions == pytest.approx((1.0, 1 / 3))


def test_folds_are_judged_one_by_one():
    assert judge_folds([FOLD, FOLD], [RIGHT, WRONG]) == pytest.approx((1.0, 1 / 3))
