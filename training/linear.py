"""Standardised rows become an L2 logistic regression, kept as JSON that numpy alone can score.

The floor every other model must beat: quick, hard to overfit, and each weight can be read.
"""

from __future__ import annotations

import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from training.encoding import Booleans, Encoding, Floats
from training.preprocessing import fit_preprocessing

L2_PENALTY = 1.0
"""Weight of half the squared norm of the coefficients against the summed log loss."""


def fit_linear(
    matrix: Floats, is_fraud: Booleans, *, encoding: Encoding, l2_penalty: float = L2_PENALTY
) -> bytes:
    """Fit a logistic regression on raw model columns.

    Args:
        matrix: Raw model columns. Shape ``(rows, features)``.
        is_fraud: The truth. Shape ``(rows,)``; both classes must occur.
        encoding: Which columns are categorical.
        l2_penalty: Weight of the penalty, > 0.

    Returns:
        A JSON document with the preprocessing, one weight per prepared column and the intercept;
        ``training.scorers.LinearScorer`` reads it.
    """
    preprocessing = fit_preprocessing(matrix, encoding=encoding)
    prepared = np.hstack([preprocessing.standardise(matrix), preprocessing.one_hot(matrix)])
    # newton-cholesky is exact and fastest with many more rows than columns
    model = LogisticRegression(C=1.0 / l2_penalty, solver="newton-cholesky", max_iter=100)
    with threadpool_limits(1):  # so few columns leave nothing to share between threads
        model.fit(prepared, is_fraud)
    document = {
        "preprocessing": preprocessing.to_document(),
        "weights": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
    }
    return json.dumps(document, allow_nan=False).encode()
