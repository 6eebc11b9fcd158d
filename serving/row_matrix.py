"""Computed features and the request's own columns become what the model reads and the log keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from features.fraud import derive
from features.fraud_rows import COLUMNS
from features.fraud_selection import FeatureSet
from training.encoding import Encoding, Floats, Integers

_POSITIONS = {name: position for position, name in enumerate(COLUMNS)}
_REQUEST_ONLY = set(derive({"amount": np.zeros(1), "event_time_us": np.zeros(1, np.int64)}))
NEEDS_HISTORY = np.array([name not in _REQUEST_ONLY for name in COLUMNS])
"""Which of the computed columns only the store can tell."""


class HasColumns(Protocol):
    """A transaction's columns that pass through as features."""

    @property
    def card_type(self) -> str | None: ...  # noqa: D102
    @property
    def extra(self) -> Mapping[str, float | str | None]: ...  # noqa: D102


@dataclass(frozen=True)
class FeatureRows:
    """The features of a batch, a row per transaction.

    Attributes:
        numbers: In the order of ``FeatureSet.numeric``. Shape ``(rows, numeric features)``.
        categories: One list of all rows for each of ``FeatureSet.categorical``.
    """

    numbers: Floats
    categories: Sequence[Sequence[str | None]]

    def take(self, positions: Integers) -> FeatureRows:
        """Return the rows at ``positions``, in that order."""
        chosen = positions.tolist()
        categories = [[column[row] for row in chosen] for column in self.categories]
        return FeatureRows(self.numbers[positions], categories)


class FeatureLayout:
    """Puts a batch's features in the order of a feature set, and of a model.

    Args:
        feature_set: What the store was built with.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        self._features = feature_set
        numeric = feature_set.numeric
        self._computed = [i for i, name in enumerate(numeric) if name in feature_set.computed]
        self._sources = [_POSITIONS[numeric[i]] for i in self._computed]
        self._passed = [(i, name) for i, name in enumerate(numeric) if i not in self._computed]

    def arrange(self, computed: Floats, transactions: Sequence[HasColumns]) -> FeatureRows:
        """Lay features out.

        Args:
            computed: ``features.fraud_rows.COLUMNS``. Shape ``(rows, 27)``.
            transactions: The same rows; what they lack is missing.
        """
        numbers = np.empty((len(transactions), len(self._features.numeric)))
        numbers[:, self._computed] = computed[:, self._sources]
        for position, name in self._passed:
            numbers[:, position] = [_to_number(row.extra.get(name)) for row in transactions]
        categories = [
            [row.card_type for row in transactions]
            if name == "card_type"
            else [row.extra.get(name) for row in transactions]
            for name in self._features.categorical
        ]
        return FeatureRows(numbers, categories)  # type: ignore[arg-type]


class ModelInput:
    """Makes one model's matrix of feature rows, as ``training.encoding.encode_features`` does.

    Args:
        encoding: The model's.
        feature_set: What the store was built with.

    Raises:
        ValueError: If the model reads a feature that the set lacks.
    """

    def __init__(self, encoding: Encoding, feature_set: FeatureSet) -> None:
        unknown = set(encoding.features) - set(feature_set.names)
        if unknown:
            raise ValueError(f"it needs features the store lacks: {', '.join(sorted(unknown))}")
        names = encoding.features
        self._num_columns = len(names)
        self._numeric = list(encoding.numeric)
        self._sources = [feature_set.numeric.index(names[i]) for i in self._numeric]
        self._categorical = [
            (i, feature_set.categorical.index(names[i]), _codes(encoding.vocabularies[names[i]]))
            for i in encoding.categorical
        ]

    def encode(self, rows: FeatureRows) -> Floats:
        """Return the model's raw columns. Shape ``(rows, features)``."""
        matrix = np.empty((len(rows.numbers), self._num_columns))
        matrix[:, self._numeric] = rows.numbers[:, self._sources]
        for position, source, codes in self._categorical:
            matrix[:, position] = [codes.get(value, np.nan) for value in rows.categories[source]]
        return matrix


def _to_number(value: float | str | None) -> float:
    return float("nan") if value is None else float(value)


def _codes(vocabulary: tuple[str, ...]) -> dict[str | None, float]:
    return {category: float(code) for code, category in enumerate(vocabulary)}


def list_extra_columns(feature_set: FeatureSet, *, contract: tuple[str, ...]) -> dict[str, bool]:
    """Name the features that are columns of the user's own, and whether they hold strings."""
    return {
        name: name in feature_set.categorical
        for name in feature_set.names
        if name not in feature_set.computed and name not in contract
    }
