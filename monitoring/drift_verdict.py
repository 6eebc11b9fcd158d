"""Each column's distance and threshold become one verdict on the window.

Features count by what the champion makes of them. Were each one's threshold exceeded by chance in
a share ``a`` of unchanged windows, the importance drifted by chance would be ``a`` on average,
however the features hang together; by Markov's inequality it reaches ``s`` in at most ``a / s`` of
them. So with thresholds at ``false_alarm_rate * min_drifted_importance`` the verdict on all
features is wrong at most as often as ``false_alarm_rate`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

SCORE = "score"


@dataclass(frozen=True)
class DriftLimits:
    """When to believe in drift; see ``monitoring`` in ``configs/fraud.yaml``."""

    min_rows: int
    max_rows: int
    num_reference_windows: int
    false_alarm_rate: float
    min_drifted_importance: float

    def find_rate(self, column: str) -> float:
        """Return how often an unchanged column may exceed its threshold."""
        share = 1.0 if column == SCORE else self.min_drifted_importance
        return self.false_alarm_rate * share


@dataclass(frozen=True)
class ColumnDrift:
    """One column's distance from the reference and the least that counts as drift.

    Attributes:
        column: Its name.
        statistic: What the distance is.
        value: The distance.
        threshold: See above.
        importance: Its share of what moves the champion's scores, in [0, 1].
    """

    column: str
    statistic: str
    value: float
    threshold: float
    importance: float = 0.0

    @property
    def is_drifted(self) -> bool:
        """Whether the distance reaches the threshold."""
        return self.value >= self.threshold

    def describe(self) -> dict[str, str | float | bool]:
        """Return the numbers for JSON."""
        return {
            "statistic": self.statistic,
            "value": self.value,
            "threshold": self.threshold,
            "drifted": self.is_drifted,
            "importance": self.importance,
        }


@dataclass(frozen=True)
class DriftVerdict:
    """What the window says about the world.

    Attributes:
        are_features_drifted: Features of enough importance drifted.
        reason: One line for a person.
        features: Every feature compared, the furthest above its threshold first.
        score: The model's score.
        drifted_importance: Of the drifted features, as a share of all that were compared.
        excluded: Columns that could not be compared, with the reason.
        num_rows: Rows compared, after sampling.
        num_reference_rows: Rows they were compared with.
        num_windows: Reference windows behind the thresholds.
        window_days: Length of each.
        gap_days: How far ahead the reference's trends were carried.
    """

    are_features_drifted: bool
    reason: str
    features: tuple[ColumnDrift, ...] = ()
    score: ColumnDrift | None = None
    drifted_importance: float = 0.0
    excluded: Mapping[str, str] = field(default_factory=dict)
    num_rows: int = 0
    num_reference_rows: int = 0
    num_windows: int = 0
    window_days: float = 0.0
    gap_days: float = 0.0

    @property
    def is_detected(self) -> bool:
        """Whether the features drifted, or the scores did."""
        return self.are_features_drifted or (self.score is not None and self.score.is_drifted)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the drifted features, the furthest above its threshold first."""
        return tuple(feature.column for feature in self.features if feature.is_drifted)

    def describe(self, *, since: pd.Timestamp, until: pd.Timestamp) -> dict[str, Any]:
        """Return the verdict as JSON: drifted features by name, every column's numbers beside."""
        return {
            "name": f"{since:%Y-%m-%d} to {until:%Y-%m-%d}",
            "detected": self.is_detected,
            "reason": self.reason,
            "features": list(self.drifted),
            "drifted_importance": self.drifted_importance,
            "columns": {feature.column: feature.describe() for feature in self.features},
            "score": self.score.describe() if self.score is not None else None,
            "excluded": dict(self.excluded),
            "rows": self.num_rows,
            "reference_rows": self.num_reference_rows,
            "reference_windows": self.num_windows,
            "window_days": self.window_days,
            "gap_days": self.gap_days,
        }


def weigh_columns(
    columns: Sequence[ColumnDrift], *, min_drifted_importance: float
) -> tuple[bool, str, float]:
    """Decide whether so much of what the champion looks at has moved that it is drift.

    Args:
        columns: The features, and the score if it was measured.
        min_drifted_importance: Share of the features' importance from which it is.

    Returns:
        ``(are_features_drifted, reason, drifted_importance)``.

    >>> moved = ColumnDrift("amount_log", "wasserstein", value=0.3, threshold=0.1, importance=0.4)
    >>> still = ColumnDrift("is_night", "wasserstein", value=0.0, threshold=0.1, importance=0.6)
    >>> weigh_columns([moved, still], min_drifted_importance=0.5)[:2]
    (False, '1 of 2 features drifted, 40% of the importance; an alarm needs 50%')
    """
    features = [column for column in columns if column.column != SCORE]
    drifted = [feature for feature in features if feature.is_drifted]
    total = sum(feature.importance for feature in features)
    share = sum(feature.importance for feature in drifted) / total if total else 0.0
    reason = (
        f"{len(drifted)} of {len(features)} features drifted, {share:.0%} of the importance; "
        f"an alarm needs {min_drifted_importance:.0%}"
    )
    if any(column.is_drifted for column in columns if column.column == SCORE):
        reason += "; the scores drifted"
    return bool(drifted) and share >= min_drifted_importance, reason, share
