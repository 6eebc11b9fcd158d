"""``throughline fraud status``: what serves, how it does, what is wrong, what was decided.

It only looks, and it looks everywhere: registry, audit, monitoring reports, the loop's database,
the running service. What is not there is said in ``notes``, with what would put it there.

Two clocks are read. What was looked at and decided has the data's time, as of which it was; when
the status was taken and since when the champion serves is the wall clock's. A replay tells them
apart by months.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from configs.files import read_json
from configs.schema import FraudConfig
from monitoring.loop_records import Attempt
from monitoring.report_folders import find_reports, get_monitoring_folder
from monitoring.status_evidence import (
    QUALITY,
    Evidence,
    OpenAlarm,
    find_open_alarms,
    group_decisions,
    merge_evidence,
    read_report,
)
from monitoring.status_loop import read_loop
from serving.champion_changes import AUDIT_FILE
from serving.server import get_service_folder
from training.artefact import SPEC_FILE
from training.model_spec import read_spec
from training.registry import (
    PREVIOUS,
    find_version,
    get_champion,
    get_registration_time,
    get_rollout,
)

NUM_EVIDENCE = 60
NUM_DECISIONS = 8
NUM_TRANSITIONS = 12
SERVICE_TIMEOUT_SECONDS = 1.0
ADVICE = {
    QUALITY: "repair the feed; nothing is trained, shadowed or promoted on it meanwhile",
    "drift": "the inputs moved: see the report's features; the loop trains if it lasts",
    "matured": "the champion does worse on known outcomes: the loop trains if it lasts",
    "estimated": "the scores expect it to do worse; wait for outcomes before you believe it",
}


def run_status(config: FraudConfig, *, html: Path | None = None) -> dict[str, Any]:
    """Collect the status, and write it as a page where asked.

    Args:
        config: The fraud problem's configuration.
        html: Where the page goes; ``None`` writes none.

    Returns:
        As ``collect_status``, with ``wrote`` and ``next``.

    Raises:
        FileNotFoundError: If there is no champion.
    """
    status = collect_status(config)
    if html is not None:
        from monitoring.status_page import write_status_page

        write_status_page(html, status=status)
    return {**status, "wrote": [] if html is None else [str(html)], "next": advise(status)}


def collect_status(config: FraudConfig) -> dict[str, Any]:
    """Look at everything once.

    Returns:
        JSON: ``time``, by the wall clock; ``data_time``, as of which the data were last looked at,
        or ``None``; ``champion`` (``version``, ``kind``, ``since``, ``trained_until``,
        ``previous``); ``rollout`` (``version``, ``stage``, ``share``) or ``None``; ``service``;
        ``performance`` (realised metrics and ``as_of``) or ``None``; ``alarms`` (``name``,
        ``message``, ``since``, ``advice``); ``attempts`` under way, each with its ``stages``;
        ``decisions`` (each ``count`` times in a row, from ``first_time`` until ``time``, the
        reasons' figures the last one's) and ``transitions``, newest first; ``history`` (``time``,
        ``average_precision``, ``low``, ``high``, oldest first); ``notes``.

    Raises:
        FileNotFoundError: If there is no champion.
    """
    version, folder = get_champion(config.runs)
    reports = find_reports(get_monitoring_folder(config.runs))[-NUM_EVIDENCE:]
    loop = read_loop(config, num_ticks=NUM_EVIDENCE, num_transitions=NUM_TRANSITIONS)
    evidence = merge_evidence((read_report(report) for report in reports), loop.ticks)
    service = _ask_service(config)
    notes = [loop.note] if loop.note else []
    if not evidence:
        notes.append(
            "nothing was monitored yet: score transactions with `throughline fraud serve`, then "
            "run `throughline fraud monitor`"
        )
    return {
        "time": datetime.now(UTC).isoformat(),
        "data_time": evidence[-1].time.isoformat() if evidence else None,
        "champion": _describe_champion(config.runs, version, folder),
        "rollout": _describe_rollout(config.runs),
        "service": service,
        "performance": _find_performance(evidence, version),
        "alarms": [_describe_alarm(item) for item in find_open_alarms(evidence, champion=version)],
        "attempts": [_describe_attempt(attempt, config) for attempt in loop.attempts],
        "decisions": [
            _describe_decisions(run) for run in reversed(group_decisions(evidence)[-NUM_DECISIONS:])
        ],
        "transitions": list(loop.transitions),
        "history": [_describe_point(item) for item in evidence],
        "notes": [*notes, *_compare_service(service, version)],
    }


def _describe_champion(runs: Path, version: str, folder: Path) -> dict[str, Any]:
    spec = read_spec(read_json(folder / SPEC_FILE))
    return {
        "version": version,
        "kind": spec.kind,
        "since": _find_start(runs, version),
        "trained_until": spec.train_end_time,
        "test_average_precision": spec.metrics.get("average_precision"),
        "previous": find_version(runs, PREVIOUS),
    }


def _find_start(runs: Path, version: str) -> str:
    """Say when the version last became champion; if that is not written, when it was registered."""
    audit = get_service_folder(runs) / AUDIT_FILE
    lines = audit.read_text(encoding="utf-8").splitlines() if audit.exists() else []
    for line in reversed(lines):
        change = json.loads(line)
        if change["to"] == version != change["from"]:
            return str(change["time"])
    return get_registration_time(runs, version).isoformat()


def _describe_rollout(runs: Path) -> dict[str, Any] | None:
    rollout = get_rollout(runs)
    return None if rollout is None else asdict(rollout)


def _ask_service(config: FraudConfig) -> dict[str, Any]:
    """Ask the service at the configured address who it is, if one answers."""
    url = f"http://{config.serving.host}:{config.serving.port}"
    try:
        answer = httpx.get(f"{url}/model", timeout=SERVICE_TIMEOUT_SECONDS, trust_env=False).json()
        keys = ("model_version", "refused", "breaker", "transactions", "prediction_log")
        return {"url": url, "answers": True, **{key: answer[key] for key in keys}}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return {"url": url, "answers": False}


def _compare_service(service: dict[str, Any], version: str) -> list[str]:
    if not service["answers"]:
        return [f"no fraud service answers on {service['url']}"]
    if service["model_version"] != version:
        return [
            f"the service on {service['url']} answers with version {service['model_version']}, not "
            f"the champion {version}; it refused: {service['refused'] or 'nothing'}"
        ]
    return []


def _find_performance(evidence: list[Evidence], champion: str) -> dict[str, Any] | None:
    """Return the newest realised metrics of the version that serves."""
    for item in reversed(evidence):
        if item.champion == champion and item.performance:
            return {"as_of": item.time.isoformat(), **item.performance}
    return None


def _describe_alarm(alarm: OpenAlarm) -> dict[str, Any]:
    since = alarm.since.isoformat()
    return {**asdict(alarm), "since": since, "advice": ADVICE.get(alarm.name, "see the report")}


def _describe_attempt(attempt: Attempt, config: FraudConfig) -> dict[str, Any]:
    """Describe an attempt with the stages of its way, and which of them it is in."""
    shares = config.rollout.canary_shares
    names = ["training", "judging"]
    names += ["shadow"] if config.rollout.shadow_days else []
    names += [f"canary {share:.0%}" for share in shares]
    names += ["watching", "done"]
    here = f"canary {attempt.share:.0%}" if attempt.state == "canary" else attempt.state
    return {**attempt.describe(), "stages": names, "stage": here}


def _describe_decisions(run: list[Evidence]) -> dict[str, Any]:
    """Describe one decision that was taken as often as the run is long."""
    newest = run[-1]
    return {
        "time": newest.time.isoformat(),
        "first_time": run[0].time.isoformat(),
        "count": len(run),
        "champion": newest.champion,
        "action": newest.action,
        "held_by": newest.held_by,
        "reasons": list(newest.reasons),
    }


def _describe_point(evidence: Evidence) -> dict[str, Any]:
    low, high = evidence.performance.get("average_precision_interval") or (None, None)
    return {
        "time": evidence.time.isoformat(),
        "champion": evidence.champion,
        "average_precision": evidence.performance.get("average_precision"),
        "low": low,
        "high": high,
        "expected": evidence.performance.get("expected_average_precision"),
    }


def advise(status: dict[str, Any]) -> str:
    """Say what a person does next."""
    names = [alarm["name"] for alarm in status["alarms"]]
    if QUALITY in names:
        return "repair the feed, then `throughline fraud monitor` again"
    if names or status["attempts"]:
        return "throughline fraud tick"
    return "nothing to do"
