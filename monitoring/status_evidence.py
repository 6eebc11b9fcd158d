"""Monitoring reports and the loop's ticks become one record of what was seen and decided.

A report (``monitor.json``) and a tick may be of the same instant: the tick says what was decided,
the report has the realised performance. Whatever either lacks is left out, so that a folder without
a loop has a status as well as one with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from configs.files import read_json
from monitoring.report_folders import REPORT_FILE

QUALITY = "quality"
"""The name of the alarm that the data-quality gate raises; the others are named as triggers."""
FIGURES = re.compile(r"(?<!\w)[+-]?\d[\d.,:-]*(?!\w)")
"""Numbers and times of a sentence, but not the digits of a name as ``customer_tx_count_24h``."""


@dataclass(frozen=True)
class Evidence:
    """What was seen and decided as of one instant.

    Attributes:
        time: As of when, UTC.
        champion: The version that served.
        alarms: Message of each alarm that was on, by ``quality`` or the trigger's name.
        action: What was decided: ``keep``, ``blocked``, ``train`` or ``retrain``.
        reasons: Why, in words.
        held_by: What kept a wish to train from being granted, if anything did.
        performance: The realised metrics, as in ``monitor.json``; empty where none are known.
    """

    time: pd.Timestamp
    champion: str
    alarms: Mapping[str, str]
    action: str
    reasons: tuple[str, ...]
    held_by: str | None = None
    performance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenAlarm:
    """An alarm that is on, and since when without a break."""

    name: str
    message: str
    since: pd.Timestamp


def read_report(folder: Path) -> Evidence:
    """Read a monitoring report."""
    return _read_look(read_json(folder / REPORT_FILE))


def _read_look(report: Mapping[str, Any]) -> Evidence:
    """Read what a look found and what was decided on it, as ``monitor.json`` has them."""
    alarms = {
        QUALITY: "; ".join(
            finding["message"]
            for finding in report["quality"]["findings"]
            if finding["severity"] == "block"
        )
    }
    for name, alarm in _find_alarms(report).items():
        alarms[name] = alarm["reason"] if alarm["is_on"] else ""
    return Evidence(
        time=pd.Timestamp(report["now"]),
        champion=report["champion"]["version"],
        alarms={name: message for name, message in alarms.items() if message},
        action=report["decision"]["action"],
        reasons=tuple(report["decision"]["reasons"]),
        performance=report["performance"],
    )


def _find_alarms(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the triggers' alarms; reports of earlier releases had only what they are made of."""
    if "alarms" in report:
        found: Mapping[str, Any] = report["alarms"]
        return found
    drift, performance = report["drift"], report["performance"]
    reason = f"{drift['reason']}: {', '.join(drift['features'])}"
    return {
        "drift": {"is_on": drift["detected"], "reason": reason},
        "matured": {"is_on": performance["is_degraded"], "reason": performance["reason"]},
    }


def read_tick(observation: Mapping[str, Any], decision: Mapping[str, Any]) -> Evidence:
    """Read a row of the loop's table ``ticks``."""
    alarms = {QUALITY: "; ".join(observation["blocking"])}
    for name, alarm in observation["alarms"].items():
        alarms[name] = alarm["reason"] if alarm["is_on"] else ""
    return Evidence(
        time=pd.Timestamp(observation["now"]),
        champion=observation["champion"],
        alarms={name: message for name, message in alarms.items() if message},
        action=decision["action"],
        reasons=tuple(decision["reasons"]),
        held_by=decision.get("held_by"),
        performance=observation["evidence"].get("performance") or {},
    )


def merge_evidence(reports: Iterable[Evidence], ticks: Iterable[Evidence]) -> list[Evidence]:
    """Put reports and ticks in time order, one per instant."""
    merged = {report.time: report for report in reports}
    for tick in ticks:
        report = merged.get(tick.time)
        known = tick.performance or (report.performance if report else {})
        merged[tick.time] = replace(tick, performance=known)
    return [merged[time] for time in sorted(merged)]


def group_decisions(evidence: Sequence[Evidence]) -> list[list[Evidence]]:
    """Put together what was decided several times in a row about one version for one reason.

    Reasons that differ in their figures alone are one: an estimate moves a little at every look.

    Args:
        evidence: In time order.

    Returns:
        The runs, in time order; none is empty.
    """

    def read_decision(item: Evidence) -> tuple[str, str, str | None, tuple[str, ...]]:
        words = tuple(FIGURES.sub("#", reason) for reason in item.reasons)
        return item.champion, item.action, item.held_by, words

    return [list(run) for _, run in groupby(evidence, key=read_decision)]


def find_open_alarms(evidence: Sequence[Evidence], *, champion: str) -> list[OpenAlarm]:
    """Find the alarms that the newest evidence raises, and since when each has been on.

    Args:
        evidence: In time order.
        champion: What serves: alarms about another version went with it, those of the feed stay.

    Returns:
        In the order in which the newest evidence names them; empty without evidence.
    """
    if not evidence:
        return []
    newest = evidence[-1]
    return [
        OpenAlarm(name, message, _find_start(evidence, name))
        for name, message in newest.alarms.items()
        if name == QUALITY or newest.champion == champion
    ]


def _find_start(evidence: Sequence[Evidence], name: str) -> pd.Timestamp:
    """Go back while the alarm was on, and about the same version unless it is the feed's."""
    newest = evidence[-1]
    start = newest.time
    for earlier in reversed(evidence):
        is_of_another = name != QUALITY and earlier.champion != newest.champion
        if name not in earlier.alarms or is_of_another:
            break
        start = earlier.time
    return start
