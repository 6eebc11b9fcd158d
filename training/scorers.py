"""A model file's bytes become something that scores the raw matrix, one class per kind of model.

A score here is a margin: the log-odds of fraud before calibration, so that no precision is lost
near 0 and 1. What a feature contributes is in the same unit. Loading needs neither torch nor
scikit-learn nor MLflow, and one thread per call: a server runs one scorer per core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

import lightgbm
import numpy as np
import onnxruntime

from training.encoding import Floats
from training.preprocessing import read_preprocessing
from training.tree_rows import TreeRows

TREES_FILE = "model.txt"
NETWORK_FILE = "model.onnx"
BLEND_FILE = "blend.json"
MODEL_FILES = {
    "logistic_regression": ("coefficients.json",),
    "lightgbm": (TREES_FILE,),
    "pytorch": (NETWORK_FILE,),
    "blend": (BLEND_FILE, TREES_FILE, NETWORK_FILE),
}
"""The kinds of model, and the files each is stored in."""

Content = bytes | Mapping[str, bytes]
"""A model of one file, or the files of one that has several, by name."""

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
    """A neural network from ``training.onnx_graph``'s ONNX file.

    Attributes:
        content: The file's bytes, as they were checked, for a device to be given them too.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
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


class BlendScorer:
    """The weighted mean of the trees' and the network's margins.

    A model without weight is not asked.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        weight = float(json.loads(files[BLEND_FILE])["tree_weight"])
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"{BLEND_FILE} gives the trees a weight of {weight}, not 0 to 1")
        parts: list[tuple[float, Scorer]] = []
        if weight > 0.0:
            parts.append((weight, TreeScorer(files[TREES_FILE])))
        if weight < 1.0:
            parts.append((1.0 - weight, NetworkScorer(files[NETWORK_FILE])))
        self._parts = parts

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud. Shape ``(rows,)``."""
        parts = [weight * part.margins(matrix) for weight, part in self._parts]
        return np.asarray(np.sum(parts, axis=0))

    def contributions(self, matrix: Floats) -> Floats:
        """Return the weighted mean of both models' contributions."""
        parts = [weight * part.contributions(matrix) for weight, part in self._parts]
        return np.asarray(np.sum(parts, axis=0))


def list_files(kind: str, content: Content) -> dict[str, bytes]:
    """Return a model's files by name, in the order of ``MODEL_FILES``.

    >>> list_files("lightgbm", b"tree")
    {'model.txt': b'tree'}
    """
    names = MODEL_FILES[kind]
    files = {names[0]: content} if isinstance(content, bytes) else dict(content)
    assert sorted(files) == sorted(names), f"a {kind} is made of {names}"
    return {name: files[name] for name in names}


def load_scorer(kind: str, content: Content) -> Scorer:
    """Make a scorer from a model's files.

    Raises:
        ValueError: If ``kind`` is none of ``MODEL_FILES``.
    """
    if kind not in MODEL_FILES:
        known = ", ".join(MODEL_FILES)
        raise ValueError(f"unknown kind of model '{kind}'; it must be one of: {known}")
    files = list_files(kind, content)
    if kind == "blend":
        return BlendScorer(files)
    (single,) = files.values()
    if kind == "logistic_regression":
        return LinearScorer(single)
    return TreeScorer(single) if kind == "lightgbm" else NetworkScorer(single)
