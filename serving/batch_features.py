"""A batch of transactions and what the store said of them become features, and what they lack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.fraud_rows import UNREADABLE
from features.fraud_selection import FeatureSet
from features.row_requests import RowRequests
from features.row_states import compute_features
from serving.decisions import REQUEST_ONLY, STALE
from serving.online_store import StoreAnswer
from serving.row_matrix import NEEDS_HISTORY, FeatureLayout, FeatureRows
from serving.waiting import Scorable


class BatchFeatures:
    """Computes a batch's features; where there is no history, those that need none.

    Args:
        feature_set: What the store was built with.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        self._layout = FeatureLayout(feature_set)

    def compute(
        self, found: StoreAnswer, requests: RowRequests, transactions: Sequence[Scorable]
    ) -> tuple[FeatureRows, list[str | None]]:
        """Compute features as of each transaction's own time.

        Args:
            found: The store's answer.
            requests: The transactions as the row kernel reads them.
            transactions: The same rows.

        Returns:
            The features, and for each row why it lacks history or None.
        """
        computed, marks = compute_features(found.states, requests)
        degraded: list[str | None] = [None] * len(transactions)
        is_unreadable = marks == UNREADABLE
        if not is_unreadable.any() and not any(age is None or age for age in found.ages):
            return self._layout.arrange(computed, transactions), degraded
        for row, age in enumerate(found.ages):
            if age is None or is_unreadable[row]:
                computed[row, NEEDS_HISTORY] = np.nan
                degraded[row] = REQUEST_ONLY
            elif age:
                degraded[row] = STALE
        return self._layout.arrange(computed, transactions), degraded
