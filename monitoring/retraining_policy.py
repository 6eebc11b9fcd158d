"""One tick's evidence and what was done before become a decision: train, keep, or repair the feed.

Pure: nothing is read, trained or written here, so that the same evidence gives the same decision,
and the same trigger key. A decision says in words a person on call can act on what asked for
training and what held it back.

A policy is a ``RetrainingSection``: never (no floor, no triggers), weekly (a floor of 7 days, no
triggers), ours, or anything between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd

from configs.sections import RetrainingSection

Trigger = Literal["drift", "matured", "estimated"]
Wish = Trigger | Literal["floor", "follow_up"]
Guard = Literal["quality", "attempt", "cooldown", "budget", "positives", "repeated"]


@dataclass(frozen=True)
class Alarm:
    """What one trigger says at one tick.

    Attributes:
        is_on: It goes off; ``None`` where there is too little to tell.
        reason: What was measured, in one line.
    """

    is_on: bool | None
    reason: str


@dataclass(frozen=True)
class Observation:
    """The evidence of one tick, all of it known at ``now``.

    Attributes:
        now: As of when, UTC.
        champion: The version that serves.
        champion_trained_time: As of when that version was trained, UTC.
        blocking: Messages of the data-quality findings that block; each names what is broken.
        alarms: By trigger; one that was not measured may be left out.
        num_new_frauds: Frauds that have matured since the last day the champion was made from.
        evidence: The numbers behind all this, as JSON, for whoever reads the record.
    """

    now: pd.Timestamp
    champion: str
    champion_trained_time: pd.Timestamp
    blocking: tuple[str, ...]
    alarms: Mapping[Trigger, Alarm]
    num_new_frauds: int
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON; ``read_observation`` is the inverse."""
        return {
            **asdict(self),
            "now": self.now.isoformat(),
            "champion_trained_time": self.champion_trained_time.isoformat(),
            "blocking": list(self.blocking),
        }


def read_observation(document: Mapping[str, Any]) -> Observation:
    """Rebuild an observation from its JSON form."""
    return Observation(
        now=pd.Timestamp(document["now"]),
        champion=document["champion"],
        champion_trained_time=pd.Timestamp(document["champion_trained_time"]),
        blocking=tuple(document["blocking"]),
        alarms={name: Alarm(**alarm) for name, alarm in document["alarms"].items()},
        num_new_frauds=document["num_new_frauds"],
        evidence=document["evidence"],
    )


@dataclass(frozen=True)
class History:
    """What happened before this tick.

    Attributes:
        recent: Earlier observations, in time order.
        active: What attempt is under way and where it stands, in words; ``None`` if none is.
        attempt_times: As of when each attempt began, in time order; a failed one counts.
        trained_time: When the last attempt that trained a challenger began.
        unfinished_time: The same, if one training is not enough: alarms had confirmed one another
            when it began, or one had asked for it and its challenger was shown to be better than
            the champion; and it was not taken back.
        settled_time: When the last attempt's challenger took over or was turned down.
        keys: Every trigger key there ever was.
    """

    recent: tuple[Observation, ...] = ()
    active: str | None = None
    attempt_times: tuple[pd.Timestamp, ...] = ()
    trained_time: pd.Timestamp | None = None
    unfinished_time: pd.Timestamp | None = None
    settled_time: pd.Timestamp | None = None
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """What to do, and why.

    Attributes:
        action: ``blocked``: something asks for training or not, the feed must be repaired first.
        reasons: What asked for training, what held it back; else all that was found quiet.
        trigger: What asked first; ``None`` if nothing did.
        wishes: All that asked, in the same order.
        key: Of the attempt to begin; the same evidence has the same key.
        held_by: What kept a wish to train from being granted, or ``quality``.
    """

    action: Literal["train", "keep", "blocked"]
    reasons: tuple[str, ...]
    trigger: Wish | None = None
    wishes: tuple[Wish, ...] = ()
    key: str | None = None
    held_by: Guard | None = None


def decide_training(
    observation: Observation, *, history: History, policy: RetrainingSection
) -> Decision:
    """Decide whether to begin an attempt: train a challenger and see it through.

    A trigger counts once it went off on ``min_alarms`` of the last ``num_recent`` days that had a
    tick; triggers that confirm one another, two or more of them, count from ``min_joint_alarms``
    on. A day is worth one alarm, its last tick's, however often the loop runs. Days whose feed was
    broken, and what led to the last attempt, do not count. The newest rows a challenger is fitted
    on are as old as the label delay and its held-out days, so in a world that has changed it has
    seen little of the change, and the next will see more. So ``follow_up_days`` after one that two
    alarms asked for, or that an alarm asked for and the gate showed to be better, training is asked
    for again, cooldown or not: as long as it is shown to pay, and nothing took it back. The floor
    asks ``floor_days`` after the last training whatever the triggers say. None of them gets past a
    broken feed, an attempt under way, the budget or too few new frauds.

    Args:
        observation: This tick's evidence.
        history: What happened before.
        policy: The limits.

    Returns:
        The decision; ``key`` is there if, and only if, it is to train.
    """
    if observation.blocking:
        return Decision(
            "blocked", ("not training on a broken feed", *observation.blocking), held_by="quality"
        )
    wishes = _find_wishes(observation, history, policy)
    if not wishes:
        return Decision("keep", _describe_quiet(observation, history, policy))
    asked = tuple(wishes)
    trigger = asked[0]
    key = f"{trigger}:v{observation.champion}:{observation.now.tz_convert('UTC'):%Y-%m-%d}"
    is_cooling = "follow_up" not in wishes
    held = _find_guard(observation, history, policy, key=key, is_cooling=is_cooling)
    if held is not None:
        guard, reason = held
        return Decision(
            "keep", (reason, *wishes.values()), trigger=trigger, wishes=asked, held_by=guard
        )
    return Decision("train", tuple(wishes.values()), trigger=trigger, wishes=asked, key=key)


def _find_wishes(
    observation: Observation, history: History, policy: RetrainingSection
) -> dict[Wish, str]:
    """Say what asks for training, and why; alarms first, the floor last."""
    days = _select_days(observation, history, policy)
    alarms = {
        trigger: [day.alarms[trigger] for day in days if _is_on(day, trigger)]
        for trigger in policy.triggers
    }
    joint = [trigger for trigger in alarms if len(alarms[trigger]) >= policy.min_joint_alarms]
    enough = policy.min_joint_alarms if len(joint) > 1 else policy.min_alarms
    wishes: dict[Wish, str] = {
        trigger: (
            f"{trigger} alarm on {len(on)} of the last {policy.num_recent} days: {on[-1].reason}"
        )
        for trigger, on in alarms.items()
        if len(on) >= enough
    }
    follow_up_time = _find_follow_up(history, policy)
    if follow_up_time is not None and observation.now >= follow_up_time:
        wishes["follow_up"] = (
            f"{policy.follow_up_days:g} days have passed since a training that met a changed "
            "world; labels of what changed have arrived since"
        )
    due_time = _find_floor(observation, history, policy)
    if due_time is not None and observation.now >= due_time:
        wishes["floor"] = (
            f"{policy.floor_days:g} days have passed since the last training; "
            f"it was due on {due_time:%Y-%m-%d}"
        )
    return wishes


def _is_on(day: Observation, trigger: Trigger) -> bool:
    return trigger in day.alarms and bool(day.alarms[trigger].is_on)


def _select_days(
    observation: Observation, history: History, policy: RetrainingSection
) -> list[Observation]:
    """Return the last observation of each of the last days, as far as they bear on this champion.

    Days of a broken feed keep their place and lose their alarms.
    """
    by_day = {}
    for past in (*history.recent, observation):
        is_settled = history.settled_time is not None and past.now <= history.settled_time
        if past.champion == observation.champion and past.now <= observation.now and not is_settled:
            by_day[past.now.floor("D")] = past
    days = [by_day[day] for day in sorted(by_day)][-policy.num_recent :]
    return [day for day in days if not day.blocking]


def _find_follow_up(history: History, policy: RetrainingSection) -> pd.Timestamp | None:
    """Say when one training is followed by another; ``None`` for never."""
    if policy.follow_up_days is None or history.unfinished_time is None:
        return None
    return history.unfinished_time + pd.Timedelta(days=policy.follow_up_days)


def _find_floor(
    observation: Observation, history: History, policy: RetrainingSection
) -> pd.Timestamp | None:
    """Say when the floor asks for training; ``None`` without a floor."""
    if policy.floor_days is None:
        return None
    trained_time = observation.champion_trained_time
    if history.trained_time is not None:  # a challenger that was turned down was a training too
        trained_time = max(trained_time, history.trained_time)
    return trained_time + pd.Timedelta(days=policy.floor_days)


def _find_guard(
    observation: Observation,
    history: History,
    policy: RetrainingSection,
    *,
    key: str,
    is_cooling: bool,
) -> tuple[Guard, str] | None:
    """Say what stands against training now, the first of all that does."""
    now = observation.now
    if history.active is not None:
        return "attempt", f"not training: {history.active}"
    if is_cooling and history.settled_time is not None:
        until = history.settled_time + pd.Timedelta(days=policy.cooldown_days)
        if now < until:
            return "cooldown", f"not training: cooling down until {until:%Y-%m-%d %H:%M}"
    since = now - pd.Timedelta(days=policy.budget_days)
    spent = [time for time in history.attempt_times if time > since]
    if len(spent) >= policy.budget:
        free = spent[-policy.budget] + pd.Timedelta(days=policy.budget_days)
        return "budget", (
            f"not training: {len(spent)} of {policy.budget} trainings in {policy.budget_days:g} "
            f"days are spent; the next is free on {free:%Y-%m-%d}. Why does training not help?"
        )
    if observation.num_new_frauds < policy.min_new_frauds:
        return "positives", (
            f"not training: {observation.num_new_frauds} new frauds have matured, "
            f"{policy.min_new_frauds} are needed"
        )
    if key in history.keys:
        return "repeated", f"not training: {key} was tried already"
    return None


def _describe_quiet(
    observation: Observation, history: History, policy: RetrainingSection
) -> tuple[str, ...]:
    """Say what each watched trigger and the floor found."""
    reasons = [f"{name}: {alarm.reason}" for name, alarm in observation.alarms.items()]
    due_time = _find_floor(observation, history, policy)
    if due_time is not None:
        reasons.append(f"the next training is due on {due_time:%Y-%m-%d} at the latest")
    return tuple(reasons) or ("nothing is watched and no training is ever due",)
