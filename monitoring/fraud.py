"""The prediction log becomes a report and a decision, and the decision a new champion if it must.

What is seen at an instant is gathered in one place (``monitoring.fraud_weighing``), whether a
person asks for a report or the loop for what it decides by.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from configs.files import write_json
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from monitoring.evidently_workspace import add_report
from monitoring.fraud_evidence import Evidence, Material, Window
from monitoring.fraud_retraining import Train, describe_retraining, run_retraining
from monitoring.fraud_weighing import weigh_evidence
from monitoring.report_folders import REPORT_FILE, get_monitoring_folder
from monitoring.retrain import RetrainDecision, decide
from monitoring.retraining_policy import Observation
from serving.prediction_log import get_prediction_folder, load_predictions
from training.artefact import load_artefact, load_reference
from training.registry import get_champion


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
        is whole of them is read), ``quality``, ``drift``, ``base_rate``, ``performance``,
        ``estimate``, ``gap``, ``alarms``, ``decision``, ``retrain``, ``wrote`` and ``next``; the
        same is in ``monitor.json``, beside Evidently's ``report.html``.

    Raises:
        FileNotFoundError: If there is no champion or no prediction.
        ValueError: If the champion answered nothing in the window.
    """
    written = get_monitoring_folder(config.runs) / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    evidence = gather_evidence(
        config, now=now, since=since, until=until, report=written / "report.html"
    )
    decision = decide(evidence.blocking, alarms=evidence.alarms)
    version = evidence.champion.version
    result: dict[str, Any] = {
        **evidence.describe(),
        "decision": {"action": decision.action, "reasons": list(decision.reasons)},
        "retrain": describe_retraining(None, champion=version),
    }
    write_json(written / REPORT_FILE, result)
    add_report(written, problem=config.problem)
    if decision.action == "retrain" and train is not None:
        result["retrain"] = run_retraining(config, now=evidence.window.now, train=train)
        write_json(written / REPORT_FILE, result)
    return {
        **result,
        "wrote": [str(path) for path in sorted(written.iterdir())],
        "next": _advise(decision, result["retrain"]),
    }


def observe(config: FraudConfig, now: pd.Timestamp) -> Observation:
    """Look at what there is at ``now``, as the loop does at each tick; write nothing.

    Nothing to look at is an observation too: a champion may have taken over a moment ago.

    Raises:
        FileNotFoundError: If there is no champion or no prediction at all.
    """
    return gather_evidence(config, now=now, may_be_silent=True).observe()


def gather_evidence(
    config: FraudConfig,
    *,
    now: pd.Timestamp | None = None,
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
    report: Path | None = None,
    may_be_silent: bool = False,
) -> Evidence:
    """Read the log, the labels and the champion, and look at them.

    Args:
        config: The fraud problem's configuration.
        now: See ``run_monitor``, as the next two.
        since: As above.
        until: As above.
        report: Where Evidently's page goes; ``None`` for none, which saves seconds.
        may_be_silent: Whether the champion may have answered nothing in the window.

    Returns:
        The evidence.

    Raises:
        FileNotFoundError: If there is no champion or no prediction.
        ValueError: If the champion answered nothing in the window, and may not.
    """
    version, folder = get_champion(config.runs)
    predictions, features = _load_answers(config.runs)
    window = _settle_window(
        predictions, now=now, since=since, until=until, days=config.monitoring.window_days
    )
    material = Material(
        champion=load_artefact(folder, version=version),
        reference=load_reference(folder),
        predictions=predictions,
        features=features,
        history=load_transactions(config.runs),
        labels=load_labels(config.runs),
    )
    own = material.select_own(window.select(material.predictions))
    if not may_be_silent:
        _check_answered(own, predictions, window=window, version=version)
    with show_progress(f"Comparing {len(own):,} predictions with the reference"):
        return weigh_evidence(config, material, window, report=report)


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
