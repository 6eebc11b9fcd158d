"""What the dashboard of the Evidently workspace shows: panels as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NUMBER = "evidently:metric_v2:ReportNumber"
FEATURE_DRIFT = "evidently:metric_v2:FeatureDrift"
"""The types under which a report's numbers are kept; Evidently wants the prefix."""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: In words.
        series: Labels of the numbers shown, by their legend.
        subtitle: What to make of it.
        metric: ``NUMBER`` or ``FEATURE_DRIFT``.
        plot: Its kind; a counter shows the last report's number.
        size: Of the page's width.
    """

    title: str
    series: Mapping[str, Mapping[str, str]]
    subtitle: str = ""
    metric: str = NUMBER
    plot: Literal["line", "bar", "counter"] = "line"
    size: Literal["full", "half"] = "half"


def _name(**legends: str) -> dict[str, dict[str, str]]:
    """Write series as ``number="legend"``."""
    return {legend: {"name": name} for name, legend in legends.items()}


PANELS = (
    Panel(
        "Realised average precision, last report",
        _name(average_precision="on matured labels"),
        plot="counter",
    ),
    Panel(
        "Drifted features, last report",
        _name(drifted_features="features past their threshold"),
        plot="counter",
    ),
    Panel(
        "Realised average precision",
        _name(
            average_precision="realised",
            average_precision_low="95 % interval, low",
            average_precision_high="95 % interval, high",
            expected_average_precision="on the champion's own test period",
            estimated_average_precision="estimated without labels",
        ),
        subtitle="Realised: on matured labels only, where there are enough. Estimated: if only the "
        "inputs moved.",
        size="full",
    ),
    Panel(
        "Realised cost per 1,000 transactions",
        _name(
            cost_per_1000="realised",
            cost_per_1000_low="95 % interval, low",
            cost_per_1000_high="95 % interval, high",
        ),
        subtitle="In account currency, on matured labels only.",
        size="full",
    ),
    Panel(
        "Immature share",
        _name(immature_share="of the predictions"),
        subtitle="Of the predictions asked about, too young for their outcome to be known.",
    ),
    Panel(
        "Predictions",
        _name(predictions="compared"),
        subtitle="The champion's answers in the window that were compared with its reference.",
        plot="bar",
    ),
    Panel(
        "Blocking findings",
        _name(blocking_findings="findings"),
        subtitle="Of the data-quality gate; while there is one, nothing is trained.",
        plot="bar",
    ),
    Panel(
        "Score",
        _name(score_drift="distance / threshold"),
        subtitle="Distance of the scores from the reference over its threshold; from 1: drift.",
    ),
    Panel(
        "Drifted features",
        _name(drifted_features="features"),
        subtitle="How many features are past their threshold.",
        plot="bar",
    ),
    Panel(
        "Drifted importance",
        _name(drifted_importance="of the features' importance"),
        subtitle="The share of what the champion looks at that is past its threshold.",
    ),
    Panel(
        "Features",
        {"{{feature}}": {}},
        subtitle="Distance of each feature from the reference over its threshold; from 1: drift.",
        metric=FEATURE_DRIFT,
        size="full",
    ),
)
