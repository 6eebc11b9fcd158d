"""What is known at one instant, and what a look at it found: feed, world, performance, alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from monitoring.base_rate import BaseRate
from monitoring.data_quality import Finding
from monitoring.drift_verdict import DriftVerdict
from monitoring.estimated_performance import Estimate, Gap
from monitoring.late_labels import Performance
from monitoring.retraining_policy import Alarm, Observation, Trigger
from training.artefact import Artefact


@dataclass(frozen=True)
class Window:
    """``since <= event_time < until``, as of ``now``; ``is_chosen`` if a person gave ``since``."""

    now: pd.Timestamp
    since: pd.Timestamp
    until: pd.Timestamp
    is_chosen: bool

    def select(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Return the rows inside, in time order."""
        inside = predictions["event_time"].between(self.since, self.until, inclusive="left")
        return predictions[inside].sort_values("event_time", kind="stable")


@dataclass(frozen=True)
class Material:
    """What is known at an instant, as frames.

    Attributes:
        champion: The model that serves.
        reference: Its reference rows.
        predictions: What was answered, by whichever version; see ``load_predictions``.
        features: The same rows' features.
        history: Every transaction, ``customer_id`` and ``event_time`` at least.
        labels: Every label; later ones than ``now`` are not looked at.
    """

    champion: Artefact
    reference: pd.DataFrame
    predictions: pd.DataFrame
    features: pd.DataFrame
    history: pd.DataFrame
    labels: pd.DataFrame

    def select_own(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Return those of the predictions that the champion itself gave."""
        return predictions[predictions["model_version"] == self.champion.version]


@dataclass(frozen=True)
class Evidence:
    """What one instant's look found.

    Attributes:
        window: What was looked at.
        champion: Whose answers.
        num_rows: How many of them.
        num_rows_of_others: Answers of other versions in the window.
        num_truncated: Segments of the log that a killed service left unfinished.
        findings: What is wrong with the feed, blocking ones first.
        drift: Whether features or scores moved.
        base_rate: Whether the share of matured frauds did.
        performance: How matured answers turned out.
        estimate: How the window's are expected to.
        gap: How far the matured ones fell short of what was expected of them.
        champion_trained_time: As of when the champion was trained, UTC.
        num_new_frauds: Frauds that have matured since the last day it was made from.
    """

    window: Window
    champion: Artefact
    num_rows: int
    num_rows_of_others: int
    num_truncated: int
    findings: tuple[Finding, ...]
    drift: DriftVerdict
    base_rate: BaseRate
    performance: Performance
    estimate: Estimate
    gap: Gap
    champion_trained_time: pd.Timestamp
    num_new_frauds: int

    @property
    def blocking(self) -> tuple[str, ...]:
        """Messages of the findings that stand against retraining."""
        return tuple(finding.message for finding in self.findings if finding.severity == "block")

    @property
    def alarms(self) -> Mapping[Trigger, Alarm]:
        """What each trigger says."""
        drift, estimate = self.drift, self.estimate
        moved = f"{drift.reason}: {', '.join(drift.drifted)}" if drift.drifted else drift.reason
        is_drift_known = bool(drift.features) or self.base_rate.share is not None
        is_estimate_known = self.gap.average_precision is not None
        is_estimate_known |= estimate.average_precision is not None
        return {
            "drift": Alarm(
                drift.is_detected or self.base_rate.is_changed if is_drift_known else None,
                f"{moved}; {self.base_rate.reason}",
            ),
            "matured": Alarm(
                self.performance.is_degraded if self.performance.is_known else None,
                self.performance.reason,
            ),
            "estimated": Alarm(
                estimate.is_low or self.gap.is_concept_drift if is_estimate_known else None,
                f"{estimate.reason}; {self.gap.reason}",
            ),
        }

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        window = self.window
        return {
            "now": window.now.isoformat(),
            "since": window.since.isoformat(),
            "until": window.until.isoformat(),
            "champion": {"name": self.champion.spec.kind, "version": self.champion.version},
            "rows": self.num_rows,
            "rows_of_other_versions": self.num_rows_of_others,
            "num_truncated": self.num_truncated,
            "quality": {
                "blocked": bool(self.blocking),
                "findings": [asdict(finding) for finding in self.findings],
            },
            "drift": self.drift.describe(since=window.since, until=window.until),
            "base_rate": self.base_rate.describe(),
            "performance": self.performance.describe(),
            "estimate": self.estimate.describe(),
            "gap": self.gap.describe(),
            "alarms": {name: asdict(alarm) for name, alarm in self.alarms.items()},
        }

    def observe(self) -> Observation:
        """Return it as what the loop decides by."""
        return Observation(
            now=self.window.now,
            champion=self.champion.version,
            champion_trained_time=self.champion_trained_time,
            blocking=self.blocking,
            alarms=self.alarms,
            num_new_frauds=self.num_new_frauds,
            evidence=self.describe(),
        )
