"""A feature frame becomes the float64 matrix every model reads, columns in one fixed order.

Invariant: the same row gives the same numbers in training, in serving and on any batch size,
because the order and the vocabularies are part of the model. Missing is NaN, and so is a category
the training rows never held: a model treats both as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

MAX_CATEGORIES = 64
"""Vocabulary limit per column; rarer categories count as unknown rather than as one-row columns."""


@dataclass(frozen=True)
class Encoding:
    """The model's inputs.

    Attributes:
        features: Column names in matrix order.
        vocabularies: For each categorical column its categories; a category's code is its position.
    """

    features: tuple[str, ...]
    vocabularies: Mapping[str, tuple[str, ...]]

    @property
    def categorical(self) -> tuple[int, ...]:
        """Matrix positions of the categorical columns."""
        return tuple(i for i, name in enumerate(self.features) if name in self.vocabularies)

    @property
    def numeric(self) -> tuple[int, ...]:
        """Matrix positions of the numeric columns."""
        return tuple(i for i, name in enumerate(self.features) if name not in self.vocabularies)

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        """How many categories each categorical column has, in matrix order."""
        return tuple(len(self.vocabularies[self.features[i]]) for i in self.categorical)


def build_encoding(
    features: pd.DataFrame, *, names: Sequence[str], categorical: Sequence[str]
) -> Encoding:
    """Learn the vocabularies from training rows.

    Args:
        features: One row per transaction with at least the columns ``names``.
        names: Model inputs in order.
        categorical: Those of ``names`` that hold strings.

    Returns:
        The encoding; each vocabulary holds the most frequent categories in alphabetical order.
    """
    return Encoding(
        features=tuple(names),
        vocabularies={
            name: tuple(sorted(features[name].dropna().value_counts().index[:MAX_CATEGORIES]))
            for name in categorical
        },
    )


def encode_features(features: pd.DataFrame, *, encoding: Encoding) -> Floats:
    """Turn feature rows into the model's matrix.

    Args:
        features: One row per transaction; columns beyond the encoding's are ignored.
        encoding: Which columns, in which order, and the categories' codes.

    Returns:
        Shape ``(rows, features)``; NaN for missing values and for unknown categories.

    Raises:
        ValueError: If a column is absent, or a numeric one holds something that is no number.

    >>> encoding = Encoding(("amount", "card_type"), {"card_type": ("credit", "debit")})
    >>> rows = pd.DataFrame({"card_type": ["debit", "gift"], "amount": [9.5, None]})
    >>> encode_features(rows, encoding=encoding).tolist()
    [[9.5, 1.0], [nan, nan]]
    """
    absent = [name for name in encoding.features if name not in features.columns]
    if absent:
        raise ValueError(f"feature rows lack the columns: {', '.join(absent)}")
    matrix = np.empty((len(features), len(encoding.features)), dtype=np.float64)
    numbers = [encoding.features[position] for position in encoding.numeric]
    matrix[:, encoding.numeric] = _encode_numbers(features[numbers])
    for position in encoding.categorical:
        name = encoding.features[position]
        matrix[:, position] = _encode_categories(features[name], encoding.vocabularies[name])
    return matrix


def _encode_categories(column: pd.Series[Any], vocabulary: tuple[str, ...]) -> Floats:
    codes = pd.Index(vocabulary, dtype=object).get_indexer(pd.Index(column, dtype=object))
    return np.where(codes < 0, np.nan, codes)


def _encode_numbers(columns: pd.DataFrame) -> Floats:
    try:
        return columns.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        texts = ", ".join(columns.select_dtypes(exclude="number").columns)
        raise ValueError(f"feature columns must hold numbers ({texts}): {error}") from error
