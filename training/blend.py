"""Two models' margins become one: a weighted mean, the weight chosen on the folds.

Trees and a network err on different rows, so their mean can beat both. A weight chosen on the rows
it is judged on would flatter the blend, for with the ends allowed it could never lose: so each
fold is judged at the weight that the other folds would have chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.encoding import Floats
from training.gbdt import FoldRows
from training.metrics import average_precision

TREE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Weighing:
    """A weight, and how well it was found to do.

    Attributes:
        tree_weight: Of the trees' margin, best on all folds; the network's is the rest.
        average_precisions: One per fold, at the weight best on the other folds.
        fold_margins: The blend's on each fold's validation rows, at ``tree_weight``.
        weight_scores: Mean average precision of each weight, in the order they were given.
    """

    tree_weight: float
    average_precisions: tuple[float, ...]
    fold_margins: tuple[Floats, ...]
    weight_scores: tuple[float, ...]


def weigh_margins(
    folds: Sequence[FoldRows],
    tree_margins: Sequence[Floats],
    network_margins: Sequence[Floats],
    *,
    weights: Sequence[float] = TREE_WEIGHTS,
) -> Weighing:
    """Choose the weight with the best mean average precision over the folds, the first of equals.

    Args:
        folds: At least one; a single fold has no others and is judged at its own best weight.
        tree_margins: Of each fold's validation rows, by trees fitted on its training part.
        network_margins: The same by a network.
        weights: Weights of the trees to choose from, 0 to 1.

    Returns:
        The weight and what it was chosen by.
    """
    blends = [
        tuple(_blend(*pair, weight) for pair in zip(tree_margins, network_margins, strict=True))
        for weight in weights
    ]
    scores = np.array([judge_folds(folds, margins) for margins in blends])  # (weights, folds)
    chosen = int(np.argmax(scores.mean(axis=1)))
    honest = []
    for fold in range(len(folds)):
        others = np.delete(scores, fold, axis=1) if len(folds) > 1 else scores
        honest.append(float(scores[np.argmax(others.mean(axis=1)), fold]))
    return Weighing(
        tree_weight=float(weights[chosen]),
        average_precisions=tuple(honest),
        fold_margins=blends[chosen],
        weight_scores=tuple(scores.mean(axis=1).tolist()),
    )


def judge_folds(folds: Sequence[FoldRows], margins: Sequence[Floats]) -> tuple[float, ...]:
    """Return each fold's average precision on its validation rows."""
    return tuple(
        average_precision(fold.valid_is_fraud, values)
        for fold, values in zip(folds, margins, strict=True)
    )


def _blend(trees: Floats, network: Floats, weight: float) -> Floats:
    return weight * trees + (1.0 - weight) * network
