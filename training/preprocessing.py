"""Raw model columns become complete, comparable numbers for the models that need them so.

A linear model and a network cannot take NaN, and learn badly from columns on different scales.
Shared by both, so that "standardised" means one thing: numeric columns are imputed with the
training median, compressed (amounts, counts and waiting times span decades) and standardised;
columns that had gaps get a 0/1 indicator; unknown categories get a code of their own. Trees read
the raw matrix instead.

Invariant: everything here was learnt from training rows, and the output is finite for any input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.encoding import Encoding, Floats, Integers

MAX_DEVIATIONS = 10.0
"""Standardised values are held within this many deviations, so that one absurd amount cannot
dominate a sum of products."""


@dataclass(frozen=True)
class Preprocessing:
    """What standardising learnt, per numeric column unless it says otherwise.

    Attributes:
        numeric: Matrix positions of the numeric columns.
        categorical: Matrix positions of the categorical columns.
        vocabulary_sizes: How many known categories each categorical column has.
        medians: Imputed where a value is missing.
        means: Subtracted after imputing and compressing.
        scales: Divided by; 1 where a column does not vary.
        with_indicator: Positions within ``numeric`` of the columns that had gaps in training.
    """

    numeric: Integers
    categorical: Integers
    vocabulary_sizes: tuple[int, ...]
    medians: Floats
    means: Floats
    scales: Floats
    with_indicator: Integers

    def standardise(self, matrix: Floats) -> Floats:
        """Impute, standardise and append the missing-value indicators.

        Args:
            matrix: Raw model columns. Shape ``(rows, features)``.

        Returns:
            Finite values. Shape ``(rows, numeric + indicators)``.
        """
        numeric = matrix[:, self.numeric]
        is_missing = np.isnan(numeric)
        filled = compress(np.where(is_missing, self.medians, numeric))
        standardised = (filled - self.means) / self.scales
        indicators = is_missing[:, self.with_indicator].astype(np.float64)
        return np.hstack([np.clip(standardised, -MAX_DEVIATIONS, MAX_DEVIATIONS), indicators])

    def code_categories(self, matrix: Floats) -> Integers:
        """Return category codes where 0 is unknown. Shape ``(rows, categorical)``."""
        codes = matrix[:, self.categorical]
        return np.where(np.isnan(codes), 0, codes + 1).astype(np.int64)

    def one_hot(self, matrix: Floats) -> Floats:
        """Return one 0/1 column per known category, all 0 for unknown, column by column."""
        codes = self.code_categories(matrix)
        blocks = [
            codes[:, [column]] == np.arange(1, size + 1)
            for column, size in enumerate(self.vocabulary_sizes)
        ]
        return np.hstack([np.empty((len(matrix), 0)), *blocks]).astype(np.float64)

    def trace_columns(self) -> Integers:
        """Return, for each column of ``standardise`` and then ``one_hot``, its raw position."""
        repeated = [
            np.repeat(position, size)
            for position, size in zip(self.categorical, self.vocabulary_sizes, strict=True)
        ]
        return np.concatenate([self.numeric, self.numeric[self.with_indicator], *repeated])

    def to_document(self) -> dict[str, Any]:
        """Return plain lists, for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else list(value)
            for name, value in vars(self).items()
        }


def compress(values: Floats) -> Floats:
    """Take the logarithm of one plus the size, and keep the sign.

    >>> compress(np.array([0.0, np.e - 1.0, 1.0 - np.e])).tolist()
    [0.0, 1.0, -1.0]
    """
    return np.sign(values) * np.log1p(np.abs(values))


def fit_preprocessing(matrix: Floats, *, encoding: Encoding) -> Preprocessing:
    """Learn medians, means and deviations from training rows.

    Args:
        matrix: Raw model columns of the training rows. Shape ``(rows, features)``.
        encoding: Which columns are categorical, and their vocabularies.

    Returns:
        What ``standardise`` needs; a column without a single value imputes 0.

    >>> encoding = Encoding(("amount",), {})
    >>> learnt = fit_preprocessing(np.array([[-1.0], [np.nan], [1.0]]), encoding=encoding)
    >>> learnt.standardise(np.array([[np.nan]])).tolist()  # the median, and "was missing"
    [[0.0, 1.0]]
    """
    numeric = matrix[:, list(encoding.numeric)]
    is_missing = np.isnan(numeric)
    finite = np.where(np.isfinite(numeric), numeric, np.nan)
    medians = np.array([_median(column) for column in finite.T])
    filled = compress(np.where(np.isnan(finite), medians, finite))
    deviations = filled.std(axis=0)
    return Preprocessing(
        numeric=np.array(encoding.numeric, dtype=np.int64),
        categorical=np.array(encoding.categorical, dtype=np.int64),
        vocabulary_sizes=encoding.vocabulary_sizes,
        medians=medians,
        means=filled.mean(axis=0),
        scales=np.where(deviations > 0, deviations, 1.0),
        with_indicator=np.flatnonzero(is_missing.any(axis=0)),
    )


def read_preprocessing(document: dict[str, Any]) -> Preprocessing:
    """Rebuild from ``to_document``; the inverse of it."""
    integers = {
        name: np.array(document[name], dtype=np.int64)
        for name in ("numeric", "categorical", "with_indicator")
    }
    return Preprocessing(
        numeric=integers["numeric"],
        categorical=integers["categorical"],
        vocabulary_sizes=tuple(document["vocabulary_sizes"]),
        medians=np.array(document["medians"], dtype=np.float64),
        means=np.array(document["means"], dtype=np.float64),
        scales=np.array(document["scales"], dtype=np.float64),
        with_indicator=integers["with_indicator"],
    )


def _median(column: Floats) -> float:
    known = column[~np.isnan(column)]
    return float(np.median(known)) if known.size else 0.0
