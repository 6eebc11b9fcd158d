"""One tick of the loop: finish what was begun, look, take the steps that are due, decide.

A step is one transaction: where an attempt stands now, and why. What its state asks of the registry
(a rollout, a promotion, a way back) is an intent until it is carried out, so that a tick killed
anywhere is finished by the next. One challenger at a time is on its way; the champion it made is
watched while the next may already follow.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from monitoring.loop_effects import apply_state, find_overtaking
from monitoring.loop_lease import LeaseTakenError, hold_lease
from monitoring.loop_parts import LoopParts
from monitoring.loop_records import ACTIVE, OPEN, Attempt, Change
from monitoring.loop_stages import find_step
from monitoring.loop_store import LoopStore
from monitoring.loop_tables import (
    Database,
    get_database_path,
    get_database_url,
    open_database,
)
from monitoring.retraining_policy import Decision, History, Observation, decide_training

MAX_TRIES = 3
"""A training that took its process down so often will do so again."""


def advance_loop(
    config: FraudConfig, *, now: pd.Timestamp, parts: LoopParts, engine: Database | None = None
) -> dict[str, Any]:
    """Take one tick.

    Args:
        config: The fraud problem's configuration; ``retraining`` and ``rollout`` are the policy.
        now: As of when, UTC.
        parts: What is asked of the rest of the system.
        engine: The loop's database, for who has it open; else it is opened for this tick.

    Returns:
        ``is_busy``; if another tick is at work, ``reason`` says which, and nothing was done. Else
        ``now``, ``champion``, ``rollout``, ``state`` (``idle``, or where the newest open attempt
        stands), ``decision``, ``attempts`` (those unfinished), ``waiting`` (by trigger key, for
        what), ``transitions`` (those of this tick) and ``observation``.

    Raises:
        ValueError: If ``now`` is before an earlier tick's, or a person must act.
        LeaseLostError: If another tick took over meanwhile.
    """
    url = get_database_url(config.runs, config.retraining.database_url)
    seconds = config.retraining.lease_seconds
    database = open_database(url) if engine is None else nullcontext(engine)
    try:
        with database as opened, hold_lease(opened, seconds=seconds) as lease:
            return _Tick(config, now, parts, LoopStore(opened, lease=lease)).run()
    except LeaseTakenError as error:
        return {"is_busy": True, "now": now.isoformat(), "reason": str(error)}


def preview_decision(config: FraudConfig, *, now: pd.Timestamp, parts: LoopParts) -> dict[str, Any]:
    """Say what a tick would decide, and change nothing; keys as of ``advance_loop``.

    An attempt under way is shown as it stands: what its judges would say is not asked.
    """
    url = get_database_url(config.runs, config.retraining.database_url)
    observation = parts.observe(config, now)
    history, unfinished = History(), []
    if config.retraining.database_url is not None or get_database_path(config.runs).is_file():
        with open_database(url) as engine:
            store = LoopStore(engine)
            history = store.load_history(now, num_days=config.retraining.num_recent)
            unfinished = store.load_unfinished()
    decision = decide_training(observation, history=history, policy=config.retraining)
    return _describe_tick(config, parts, observation, decision, unfinished)


def _describe_tick(
    config: FraudConfig,
    parts: LoopParts,
    observation: Observation,
    decision: Decision,
    unfinished: list[Attempt],
) -> dict[str, Any]:
    active = [attempt for attempt in unfinished if attempt.state in ACTIVE]
    newest = [*unfinished, *active][-1:]
    rollout = parts.get_rollout(config)
    return {
        "is_busy": False,
        "now": observation.now.isoformat(),
        "champion": parts.get_champion_version(config),
        "rollout": rollout and str(rollout),
        "state": newest[0].state if newest else "idle",
        "decision": {**asdict(decision), "reasons": list(decision.reasons)},
        "attempts": [attempt.describe() for attempt in unfinished],
        "waiting": {},
        "transitions": [],
        "observation": observation.describe(),
    }


@dataclass
class _Tick:
    """One tick, by the process that holds the lease."""

    config: FraudConfig
    now: pd.Timestamp
    parts: LoopParts
    store: LoopStore
    waiting: dict[str, str] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        self._check_time()
        first = self.store.find_last_transition()
        self._settle_all()  # first of all: a way back must not wait for a look around
        observation = self.parts.observe(self.config, self.now)
        for attempt in self.store.load_unfinished():
            self._progress(attempt, observation)
        decision = self._decide(observation)
        self._settle_all()  # a promotion ends the watch before it
        unfinished = self.store.load_unfinished()
        return {
            **_describe_tick(self.config, self.parts, observation, decision, unfinished),
            "waiting": self.waiting,
            "transitions": self.store.load_transitions(after_id=first),
        }

    def _check_time(self) -> None:
        last = self.store.find_last_tick()
        if last is not None and self.now < last:
            raise ValueError(
                f"--now {self.now.isoformat()} is before the last tick's {last.isoformat()}; "
                "the loop does not go back in time"
            )

    def _decide(self, observation: Observation) -> Decision:
        """Decide, write the tick down, and see the attempt it may open as far as it goes."""
        policy = self.config.retraining
        champion = self.parts.get_champion_version(self.config)
        if champion != observation.champion:
            reason = f"version {champion} has just replaced {observation.champion}; see how it does"
            decision = Decision("keep", (reason,))
        else:
            history = self.store.load_history(self.now, num_days=policy.num_recent)
            decision = decide_training(observation, history=history, policy=policy)
        attempt = self.store.record_tick(observation, decision)
        self.parts.checkpoint("after deciding")
        if attempt is not None:
            self._progress(attempt, observation)
        return decision

    def _progress(self, attempt: Attempt, observation: Observation) -> None:
        """Take every step of an attempt that is due now."""
        while True:
            attempt = self._settle(attempt)
            if attempt.state not in OPEN:
                return
            attempt = self._freeze_or_thaw(attempt, observation)
            if attempt.is_frozen:
                self.waiting[attempt.trigger_key] = "; ".join(observation.blocking)
                return
            if attempt.state == "training":
                attempt = self._train(attempt)
                continue
            step = find_step(attempt, config=self.config, parts=self.parts, now=self.now)
            if isinstance(step, str):
                self.waiting[attempt.trigger_key] = step
                return
            attempt = self._move(attempt, step)

    def _settle_all(self) -> None:
        for attempt in self.store.load_unfinished():
            self._settle(attempt)

    def _settle(self, attempt: Attempt) -> Attempt:
        """Carry out what an attempt's state asks for, unless another hand has overtaken it."""
        later = [item for item in self.store.load_attempts() if item.id > attempt.id]
        overtaken = find_overtaking(attempt, config=self.config, parts=self.parts, later=later)
        if overtaken is not None:
            attempt = self._move(attempt, overtaken)
        if attempt.is_applied:
            return attempt
        assert self.store.lease is not None
        self.store.lease.confirm(self.store.engine)
        try:
            apply_state(attempt, config=self.config, parts=self.parts)
        except ValueError as error:
            if attempt.state not in OPEN:
                raise  # the way back is closed: a person must act, and is told at every tick
            return self._settle(self._move(attempt, Change("failed", (str(error),), {})))
        self.parts.checkpoint(f"after applying {attempt.state}")
        return self.store.save(attempt, replace(attempt, is_applied=True))

    def _freeze_or_thaw(self, attempt: Attempt, observation: Observation) -> Attempt:
        """Stop on a broken feed; what was served on it is no evidence once it is repaired."""
        is_frozen = bool(observation.blocking)
        if is_frozen == attempt.is_frozen:
            return attempt
        sound = ("the feed is sound again: shadow and canary begin anew",)
        reasons = ("frozen on a broken feed", *observation.blocking) if is_frozen else sound
        begins_anew = attempt.state in ("shadow", "canary") and not is_frozen
        changed = replace(
            attempt,
            is_frozen=is_frozen,
            state_time=self.now if begins_anew else attempt.state_time,
        )
        change = Change(attempt.state, reasons, {}, step=attempt.step, share=attempt.share)
        return self.store.save(attempt, changed, change=change, now=self.now)

    def _train(self, attempt: Attempt) -> Attempt:
        """Train the challenger, or find the one that a killed tick had trained."""
        if attempt.num_tries >= MAX_TRIES:
            reason = f"training was begun {MAX_TRIES} times and never ended; was there memory?"
            return self._move(attempt, Change("failed", (reason,), {}))
        attempt = self.store.save(attempt, replace(attempt, num_tries=attempt.num_tries + 1))
        self.parts.checkpoint("before training")
        try:
            version = self.parts.train(self.config, attempt.opened_time, attempt.trigger_key)
        except ValueError as error:
            return self._move(attempt, Change("failed", (f"training stopped: {error}",), {}))
        self.parts.checkpoint("after training")
        reason = f"version {version} was trained as of {attempt.opened_time:%Y-%m-%d %H:%M}"
        return self._move(attempt, Change("judging", (reason,), {}, challenger=version))

    def _move(self, attempt: Attempt, change: Change) -> Attempt:
        moved = self.store.move(attempt, change, now=self.now)
        self.parts.checkpoint(f"after intending {change.to_state}")
        return moved
