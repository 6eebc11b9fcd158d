"""A monitoring report (``monitor.json``) becomes named numbers that can be followed over time.

Reports of other releases may lack a part; what is not there gives no number, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

PERFORMANCE_NUMBERS = (
    "average_precision",
    "expected_average_precision",
    "card_precision_at_100",
    "cost_per_1000",
    "brier_score",
    "fraud_ratio",
    "immature_share",
)
"""Keys of ``performance`` that are shown as they are; ``<key>_interval`` gives two more numbers."""


def collect_numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """Collect a report's headline numbers.

    Args:
        report: What ``monitor.json`` holds: ``rows``, ``quality``, ``drift``, ``performance``.

    Returns:
        ``predictions``, ``blocking_findings``, ``drifted_features``, ``drifted_importance`` (share
        of the features' importance), ``score_drift`` (distance over threshold),
        ``estimated_average_precision`` (without labels), and of the realised performance each of
        ``PERFORMANCE_NUMBERS`` with ``<name>_low`` and ``<name>_high``, the ends of its interval.
        Only what the report knows.

    >>> collect_numbers({"rows": 3, "performance": {"average_precision": None}})
    {'predictions': 3.0}
    """
    return {name: float(value) for name, value in _find_numbers(report) if _is_number(value)}


def collect_feature_drifts(report: Mapping[str, Any]) -> dict[str, float]:
    """Return each feature's distance from the reference over its threshold; from 1 it drifted.

    >>> collect_feature_drifts({"drift": {"columns": {"a": {"value": 0.2, "threshold": 0.1}}}})
    {'a': 2.0}
    """
    columns = report.get("drift", {}).get("columns", {})
    return {name: column["value"] / column["threshold"] for name, column in columns.items()}


def _find_numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every headline number by name, ``None`` where the report does not know it."""
    yield "predictions", report.get("rows")
    findings = report.get("quality", {}).get("findings")
    if findings is not None:
        yield "blocking_findings", sum(finding["severity"] == "block" for finding in findings)
    drift = report.get("drift", {})
    if columns := drift.get("columns"):
        yield "drifted_features", sum(column["drifted"] for column in columns.values())
        yield "drifted_importance", drift.get("drifted_importance")
    if score := drift.get("score"):
        yield "score_drift", score["value"] / score["threshold"]
    yield "estimated_average_precision", report.get("estimate", {}).get("average_precision")
    performance = report.get("performance", {})
    for name in PERFORMANCE_NUMBERS:
        yield name, performance.get(name)
        low, high = performance.get(f"{name}_interval") or (None, None)
        yield f"{name}_low", low
        yield f"{name}_high", high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
