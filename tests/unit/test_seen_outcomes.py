"""How often a row counts, given the chance with which its outcome could be seen."""

import numpy as np

from training.seen_outcomes import repeat_by_weight


def test_a_row_is_there_as_often_as_it_stands_for():
    weights = np.bincount(repeat_by_weight(np.array([1.0, 0.25, 0.0, 0.1])))
    assert weights.tolist() == [1, 4, 1, 10]
