"""Where an attempt stands and what its judges say become its next step, or what it waits for.

::

    idle -> training -> judging -> shadow -> canary (5 %, 25 %) -> watching -> done
                |          |          |         |                     |
              failed    rejected      +---------+---------------------+--> rolled_back

Nothing is written or moved here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from configs.sections import RolloutSection
from monitoring.arm_guards import ArmFinding
from monitoring.loop_parts import LoopParts
from monitoring.loop_records import Attempt, Change, State
from training.rollout import Rollout

Step = Change | str
"""Where to go, or in words what is waited for."""


def find_step(
    attempt: Attempt, *, config: FraudConfig, parts: LoopParts, now: pd.Timestamp
) -> Step:
    """Judge an attempt that has its challenger.

    Args:
        attempt: In judging, shadow, canary or watching, carried out.
        config: ``rollout`` says what stages there are, and their limits.
        parts: Whom to ask.
        now: As of when, UTC.

    Returns:
        The next step, or what is waited for.
    """
    match attempt.state:
        case "judging":
            return _judge(attempt, config, parts, now)
        case "shadow" | "canary":
            return _compare_arms(attempt, config, parts, now)
        case _:
            return _watch(attempt, config, parts, now)


def find_rollout(attempt: Attempt) -> Rollout | None:
    """Return the rollout that an attempt's state asks for; ``None`` outside shadow and canary."""
    if attempt.challenger is None:
        return None
    match attempt.state:
        case "shadow":
            return Rollout(attempt.challenger, "shadow", 0.0)
        case "canary":
            return Rollout(attempt.challenger, "canary", attempt.share)
    return None


def _judge(attempt: Attempt, config: FraudConfig, parts: LoopParts, now: pd.Timestamp) -> Step:
    """Let a challenger on if the gate does, on days later than everything it has seen."""
    if not config.rollout.gate:
        return _go_on(attempt, config.rollout, ("rollout.gate is off: it was not judged",), {})
    assert attempt.challenger is not None
    try:
        verdict = parts.judge(config, attempt.champion, attempt.challenger, now)
    except ValueError as error:
        return Change("failed", (f"it could not be judged: {error}",), {})
    evidence = asdict(verdict)
    if verdict.promote:
        return _go_on(attempt, config.rollout, verdict.reasons, evidence)
    if verdict.is_decided or _is_overdue(attempt, config.rollout, now):
        return Change("rejected", verdict.reasons, evidence)
    return "; ".join(verdict.reasons)


def _compare_arms(
    attempt: Attempt, config: FraudConfig, parts: LoopParts, now: pd.Timestamp
) -> Step:
    """Let it on after the stage's days if nothing was breached and enough was seen."""
    limits = config.rollout
    days = limits.shadow_days if attempt.state == "shadow" else limits.canary_days
    if days == 0:
        return _go_on(attempt, limits, (f"{attempt.state} takes no time here",), {})
    until = attempt.state_time + pd.Timedelta(days=days)
    rest = f"in {attempt.state} until {until:%Y-%m-%d %H:%M}"
    if now <= attempt.state_time:
        return rest
    rollout = find_rollout(attempt)
    assert rollout is not None
    findings = parts.compare_arms(config, rollout, attempt.state_time, now)
    breaches, unseen = _select(findings, "breach"), _select(findings, "wait")
    if breaches:
        return Change("rolled_back", breaches, _describe(findings))
    if now < until:
        return rest
    if not unseen:
        return _go_on(attempt, limits, _select(findings, "ok"), _describe(findings))
    if _is_overdue(attempt, limits, now):
        reasons = (f"nothing to judge it by in {limits.max_wait_days:g} days", *unseen)
        return Change("rejected", reasons, _describe(findings))
    return "; ".join(unseen)


def _watch(attempt: Attempt, config: FraudConfig, parts: LoopParts, now: pd.Timestamp) -> Step:
    """Take a new champion back if it does worse than the one before would have."""
    findings: tuple[ArmFinding, ...] = ()
    if now > attempt.state_time:
        assert attempt.challenger is not None
        findings = parts.compare_with_previous(
            config, attempt.champion, attempt.challenger, attempt.state_time, now
        )
    breaches = _select(findings, "breach")
    if breaches:
        return Change("rolled_back", breaches, _describe(findings))
    days = config.rollout.watch_days
    until = attempt.state_time + pd.Timedelta(days=days)
    if now < until:
        return f"watched until {until:%Y-%m-%d %H:%M}"
    said = (*_select(findings, "ok"), *_select(findings, "wait"))
    return Change("done", (f"it was watched for {days:g} days", *said), _describe(findings))


def _go_on(
    attempt: Attempt, rollout: RolloutSection, reasons: Sequence[str], evidence: dict[str, Any]
) -> Change:
    """Go to the next stage there is; the stages may have been changed since the last one."""
    order: tuple[State, ...] = ("judging", "shadow", "canary", "watching")
    stages: list[tuple[State, int, float]] = [
        ("canary", step, share) for step, share in enumerate(rollout.canary_shares)
    ]
    if rollout.shadow_days > 0:
        stages.insert(0, ("shadow", 0, 0.0))
    stages.append(("watching", 0, 0.0))
    here = (order.index(attempt.state), attempt.step)
    state, step, share = next(stage for stage in stages if (order.index(stage[0]), stage[1]) > here)
    return Change(state, tuple(reasons), evidence, step=step, share=share)


def _is_overdue(attempt: Attempt, rollout: RolloutSection, now: pd.Timestamp) -> bool:
    return now - attempt.state_time > pd.Timedelta(days=rollout.max_wait_days)


def _select(findings: Sequence[ArmFinding], verdict: str) -> tuple[str, ...]:
    return tuple(finding.reason for finding in findings if finding.verdict == verdict)


def _describe(findings: Sequence[ArmFinding]) -> dict[str, Any]:
    return {"findings": [asdict(finding) for finding in findings]}
