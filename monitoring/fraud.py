"""The prediction log becomes a report and a decision, and the decision a new champion if it must.

In order: is the feed sound, did the world move, how did matured answers turn out, what follows. All
of it is held against the champion's own artefact, as of one instant ``now``: nothing that happened
or became known later is looked at.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from configs.files import write_json
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from monitoring.data_quality import Finding, QualityLimits, check_quality
from monitoring.drift import DriftLimits, DriftVerdict, measure_drift
from monitoring.evidently_workspace import add_report
from monitoring.fraud_retraining import Train, describe_retraining, run_retraining
from monitoring.late_labels import Performance, join_outcomes, measure_performance
from monitoring.report_folders import REPORT_FILE, get_monitoring_folder
from monitoring.retrain import RetrainDecision, decide
from serving.prediction_log import get_prediction_folder, load_predictions
from training.artefact import Artefact, load_artefact, load_reference
from training.registry import get_champion


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


def run_monitor(
    config: FraudConfig,
    *,
    now: pd.Timestamp | None = None,
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
    train: Train | None = None,
) -> dict[str, Any]:
    """Report on the champion's predictions, decide, and retrain if that is the decision.

    Args:
        config: The fraud problem's configuration.
        now: As of when, UTC; the latest event of the log if not given.
        since: First instant of the window, UTC; ``monitoring.window_days`` before its end if not
            given. Given, it also bounds the answers that are held against matured labels.
        until: First instant after the window, UTC; just after ``now`` if not given.
        train: What trains a challenger; without it a decision to retrain is only reported.

    Returns:
        ``rows``, ``num_truncated`` (segments of the log that a killed service left unfinished; what
        is whole of them is read), ``quality``, ``drift``, ``performance``, ``decision``,
        ``retrain``, ``wrote`` and ``next``; the same is in ``monitor.json``, beside Evidently's
        ``report.html``.

    Raises:
        FileNotFoundError: If there is no champion or no prediction.
        ValueError: If the champion answered nothing in the window.
    """
    version, folder = get_champion(config.runs)
    champion = load_artefact(folder, version=version)
    predictions, features = _load_answers(config.runs)
    window = _settle_window(
        predictions, now=now, since=since, until=until, days=config.monitoring.window_days
    )
    served = window.select(predictions)
    own = served[served["model_version"] == version]
    _check_answered(own, predictions, window=window, version=version)
    history = load_transactions(config.runs)
    written = get_monitoring_folder(config.runs) / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    comparison = _Comparison(config, champion, window, own, features.loc[own.index])
    with show_progress(f"Comparing {len(own):,} predictions with the reference"):
        reference = load_reference(folder)
        findings = comparison.check_feed(reference, history["event_time"])
        drift = comparison.measure_drift(reference, written / "report.html")
    performance = _judge_answers(config, champion, predictions, history, window)
    decision = decide(findings, drift=drift, performance=performance)
    result: dict[str, Any] = {
        "now": window.now.isoformat(),
        "since": window.since.isoformat(),
        "until": window.until.isoformat(),
        "champion": {"name": champion.spec.kind, "version": version},
        "rows": len(own),
        "rows_of_other_versions": len(served) - len(own),
        "num_truncated": predictions.attrs["num_truncated"],
        "quality": {
            "blocked": decision.action == "blocked",
            "findings": [asdict(finding) for finding in findings],
        },
        "drift": _describe_drift(drift, window),
        "performance": asdict(performance),
        "decision": {"action": decision.action, "reasons": list(decision.reasons)},
        "retrain": describe_retraining(None, champion=version),
    }
    write_json(written / REPORT_FILE, result)
    add_report(written, problem=config.problem)
    if decision.action == "retrain" and train is not None:
        result["retrain"] = run_retraining(config, now=window.now, train=train)
        write_json(written / REPORT_FILE, result)
    return {
        **result,
        "wrote": [str(path) for path in sorted(written.iterdir())],
        "next": _advise(decision, result["retrain"]),
    }


def _load_answers(runs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the prediction log, naming it when it is empty."""
    folder = get_prediction_folder(runs)
    predictions, features = load_predictions(folder)
    if predictions.empty:
        raise FileNotFoundError(
            f"no predictions in {folder}; start `throughline fraud serve` and score transactions"
        )
    return predictions, features


def _settle_window(
    predictions: pd.DataFrame,
    *,
    now: pd.Timestamp | None,
    since: pd.Timestamp | None,
    until: pd.Timestamp | None,
    days: int,
) -> Window:
    now = predictions["event_time"].max() if now is None else now
    end = now + pd.Timedelta(microseconds=1)
    end = end if until is None else min(until, end)
    start = end - pd.Timedelta(days=days) if since is None else since
    return Window(now, start, end, is_chosen=since is not None)


def _check_answered(
    own: pd.DataFrame, predictions: pd.DataFrame, *, window: Window, version: str
) -> None:
    if own.empty:
        versions = ", ".join(sorted(predictions["model_version"].unique()))
        raise ValueError(
            f"champion version {version} answered nothing from {window.since:%Y-%m-%d %H:%M} to "
            f"{window.until:%Y-%m-%d %H:%M}; the log holds version {versions} from "
            f"{predictions['event_time'].min():%Y-%m-%d %H:%M} to "
            f"{predictions['event_time'].max():%Y-%m-%d %H:%M}: choose --now and --since within"
        )


@dataclass(frozen=True)
class _Comparison:
    """The champion's answers in a window (``own``, with their ``features``) and their judge."""

    config: FraudConfig
    champion: Artefact
    window: Window
    own: pd.DataFrame
    features: pd.DataFrame

    @property
    def categorical(self) -> tuple[str, ...]:
        return tuple(self.champion.spec.encoding.vocabularies)

    def check_feed(
        self, reference: pd.DataFrame, event_times: pd.Series[pd.Timestamp]
    ) -> tuple[Finding, ...]:
        """Gate the window; the usual volume is the history's while the reference was drawn."""
        first, last = reference["event_time"].min(), reference["event_time"].max()
        days = max((last - first) / pd.Timedelta(days=1), 1.0)
        limits = self.config.monitoring
        return check_quality(
            self.features,
            predictions=self.own,
            reference=reference,
            names=self.champion.features,
            categorical=self.categorical,
            until=self.window.until,
            limits=QualityLimits(
                max_null_share_increase=limits.max_null_share_increase,
                max_unit_ratio=limits.max_unit_ratio,
                max_duplicate_share=limits.max_duplicate_share,
                max_degraded_share=limits.max_degraded_share,
            ),
            expected_rows_per_day=float(event_times.between(first, last).sum() / days),
        )

    def measure_drift(self, reference: pd.DataFrame, report: Path) -> DriftVerdict:
        """Measure drift of the score and of those features of the champion that the log has."""
        names = [name for name in self.champion.features if name in self.features]
        limits = self.config.monitoring
        return measure_drift(
            self.features[names].assign(event_time=self.own["event_time"], score=self.own["score"]),
            reference=reference,
            categorical=self.categorical,
            limits=DriftLimits(
                min_rows=limits.min_rows,
                max_rows=limits.max_rows,
                num_reference_windows=limits.num_reference_windows,
                false_alarm_rate=limits.false_alarm_rate,
                min_drifted_features=limits.min_drifted_features,
            ),
            seed=self.config.seed,
            report=report,
        )


def _judge_answers(
    config: FraudConfig,
    champion: Artefact,
    predictions: pd.DataFrame,
    history: pd.DataFrame,
    window: Window,
) -> Performance:
    """Hold the champion's answers against the labels known at ``window.now``.

    Unless a person chose the window, it reaches back over ``window_days`` that have matured: the
    newest days cannot be judged yet.
    """
    delay = pd.Timedelta(days=config.data.label_delay_days)
    earliest = window.now - delay - pd.Timedelta(days=config.monitoring.window_days)
    since = window.since if window.is_chosen else min(window.since, earliest)
    asked = Window(window.now, since, window.until, is_chosen=True)
    outcomes = join_outcomes(
        asked.select(predictions[predictions["model_version"] == champion.version]),
        labels=load_labels(config.runs),
        now=window.now,
        label_delay_days=config.data.label_delay_days,
    )
    customers = outcomes["transaction_id"].map(history.set_index("transaction_id")["customer_id"])
    return measure_performance(
        outcomes.assign(customer_id=customers.fillna(outcomes["transaction_id"])),
        expected_average_precision=float(champion.spec.metrics["average_precision"]),
        max_drop=config.monitoring.max_matured_average_precision_drop,
        min_frauds=config.monitoring.min_matured_frauds,
        num_resamples=config.training.num_bootstrap,
        seed=config.seed,
    )


def _describe_drift(drift: DriftVerdict, window: Window) -> dict[str, Any]:
    """Return the verdict as JSON: drifted features by name, every column's numbers beside them."""
    return {
        "name": f"{window.since:%Y-%m-%d} to {window.until:%Y-%m-%d}",
        "detected": drift.is_detected,
        "reason": drift.reason,
        "features": list(drift.drifted),
        "columns": {feature.column: feature.describe() for feature in drift.features},
        "score": drift.score.describe() if drift.score is not None else None,
        "excluded": dict(drift.excluded),
        "rows": drift.num_rows,
        "reference_rows": drift.num_reference_rows,
        "reference_windows": drift.num_windows,
        "window_days": drift.window_days,
        "gap_days": drift.gap_days,
    }


def _advise(decision: RetrainDecision, retrain: dict[str, Any]) -> str:
    """Say what a person does next."""
    if decision.action == "blocked":
        return "repair the feed (see quality.findings), then `throughline fraud monitor` again"
    if decision.action == "keep":
        return "nothing to do: run `throughline fraud monitor` again when more has been served"
    if not retrain["triggered"]:
        return "run `throughline fraud train` for a challenger"
    if retrain["promoted"]:
        return f"a running service takes version {retrain['version']} up by itself; keep watching"
    return "the champion stays; retrain.reasons says why"
