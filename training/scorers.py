"""A model file's bytes become something that scores the raw matrix, one class per kind of model.

A score here is a margin: the log-odds of fraud before calibration, so that no precision is lost
near 0 and 1. What a feature contributes is in the same unit. Loading needs neither torch nor
scikit-learn nor MLflow, and one thread per call: a server runs one scorer per core.
"""

from __future__ import annotations

import json
from typing import Protocol

import lightgbm
import numpy as np
import onnxruntime

from training.encoding import Floats
from training.preprocessing import read_preprocessing
from training.tree_rows import TreeRows

MODEL_FILES = {
    "logistic_regression": "coefficients.json",
    "lightgbm": "model.txt",
    "pytorch": "model.onnx",
}
"""The kinds of model, and the file each is stored in."""

MAX_ROWS_ONE_BY_ONE = 64
"""Above this LightGBM's own batches are as fast, and let other threads run meanwhile."""


class Scorer(Protocol):
    """What every kind of model can do."""

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud for raw columns ``(rows, features)``. Shape ``(rows,)``."""
        ...

    def contributions(self, matrix: Floats) -> Floats:
        """Return each feature's share in the margin, log-odds. Shape ``(rows, features)``."""
        ...


class LinearScorer:
    """Logistic regression from ``training.linear``'s JSON."""

    def __init__(self, content: bytes) -> None:
        document = json.loads(content)
        self._preprocessing = read_preprocessing(document["preprocessing"])
        self._weights = np.array(document["weights"])
        self._intercept = float(document["intercept"])
        self._positions = self._preprocessing.trace_columns()

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud. Shape ``(rows,)``."""
        # a sum per row, not a matrix product: BLAS rounds differently for different batch sizes
        return np.asarray((self._prepare(matrix) * self._weights).sum(axis=1) + self._intercept)

    def contributions(self, matrix: Floats) -> Floats:
        """Return weight times standardised value, summed over the columns a feature became."""
        terms = self._prepare(matrix) * self._weights
        shares = np.zeros(matrix.shape)
        for column, position in enumerate(self._positions):
            shares[:, position] += terms[:, column]
        return shares

    def _prepare(self, matrix: Floats) -> Floats:
        prepared = self._preprocessing
        return np.hstack([prepared.standardise(matrix), prepared.one_hot(matrix)])


class TreeScorer:
    """Gradient-boosted trees from LightGBM's text format."""

    def __init__(self, content: bytes) -> None:
        self._booster = lightgbm.Booster(model_str=content.decode())
        self._rows = TreeRows(content, num_features=self._booster.num_feature())

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud, bit by bit the same either way. Shape ``(rows,)``."""
        if len(matrix) <= MAX_ROWS_ONE_BY_ONE:
            return self._rows.margins(matrix)
        return np.asarray(self._booster.predict(matrix, raw_score=True, num_threads=1))

    def contributions(self, matrix: Floats) -> Floats:
        """Return SHAP values; they and the trees' mean margin sum to the margin.

        Source: Lundberg et al., "From local explanations to global understanding", 2020 (TreeSHAP).
        """
        shares = self._booster.predict(matrix, pred_contrib=True, num_threads=1)
        return np.asarray(shares)[:, :-1]


class NetworkScorer:
    """A neural network from ``training.onnx_graph``'s ONNX file."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        metadata = self._session.get_modelmeta().custom_metadata_map
        typical = json.loads(metadata["typical_row"])
        self._typical_row = np.array(typical, dtype=np.float64)  # null becomes NaN: unknown

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud. Shape ``(rows,)``."""
        (margins,) = self._session.run(["margin"], {"matrix": np.ascontiguousarray(matrix)})
        return np.asarray(margins, dtype=np.float64)

    def contributions(self, matrix: Floats) -> Floats:
        """Return how far the margin falls when a feature alone is set to its typical value.

        Occlusion: exact for one feature at a time, blind to interactions, and one batch per row.
        """
        shares = np.empty(matrix.shape)
        for row, values in enumerate(matrix):
            variants = np.repeat(values[None, :], len(values) + 1, axis=0)
            np.fill_diagonal(variants, self._typical_row)  # (features + 1, features)
            margins = self.margins(variants)
            shares[row] = margins[-1] - margins[:-1]
        return shares


def load_scorer(kind: str, content: bytes) -> Scorer:
    """Make a scorer from a model file's bytes.

    Raises:
        ValueError: If ``kind`` is none of ``MODEL_FILES``.
    """
    if kind == "logistic_regression":
        return LinearScorer(content)
    if kind == "lightgbm":
        return TreeScorer(content)
    if kind == "pytorch":
        return NetworkScorer(content)
    raise ValueError(f"unknown kind of model '{kind}'; it must be one of: {', '.join(MODEL_FILES)}")
