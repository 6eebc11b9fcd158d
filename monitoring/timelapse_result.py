"""Days of every policy in every world become the table, the targets and what speaks against ours.

Average precision and cost are the oracle's: they know outcomes that no policy was told. Everything
else counts what the loops did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np
from scipy.stats import poisson

from configs.schema import FraudConfig
from monitoring.timelapse_policies import OURS, WEEKLY
from training.encoding import Floats

Day = Mapping[str, Any]
ALLOWED_LOSS = 0.02
"""Of weekly retraining's average precision: within it a policy counts as level."""
ALARM_RATE_PER_COLUMN_RATE = 3.0
"""What ``throughline bench alarms`` holds a report's false alarms to, in ``false_alarm_rate``."""
MAX_SECONDS = 300
"""All worlds and policies, on two cores at the size of the demo."""
MAX_GAP = 1e-9
"""Between what is served and what the time-lapse says is served."""
SMOOTHING_DAYS = 7
RECOVERY_DAYS = 14
"""Days averaged before a policy is said to be behind; a week's mean strays by more than 2 %."""


def smooth(values: Floats, *, num_days: int) -> Floats:
    """Average each day with the days before it, ``num_days`` in all or as many as there are.

    Days without a value are left out of the means.

    >>> smooth(np.array([1.0, 3.0, np.nan, 5.0]), num_days=2).tolist()
    [1.0, 2.0, 3.0, 5.0]
    """
    known = ~np.isnan(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    sums[num_days:] -= sums[:-num_days].copy()
    counts[num_days:] -= counts[:-num_days].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / counts)


def read_average_precisions(days: Sequence[Day]) -> Floats:
    """Return the oracle's average precision of each day, NaN where no fraud happened."""
    return np.array([day["average_precision"] for day in days], dtype=np.float64)


def find_marks(days: Sequence[Day]) -> list[dict[str, Any]]:
    """List what a picture marks: trainings, promotions, rejections and rollbacks, by day."""
    names = {"judging": "trained", "watching": "promoted", "rejected": "rejected"}
    names |= {"rolled_back": "rolled back", "failed": "failed"}
    return [
        {
            "day": day["day"] + 1,
            "mark": names[step["to_state"]],
            "trigger_key": step["trigger_key"],
            "reasons": step["reasons"],
        }
        for day in days
        for step in day["transitions"]
        if step["to_state"] in names and step["to_state"] != step["from_state"]
    ]


def count_trainings(days: Sequence[Day]) -> int:
    """Count the trainings that began on these days, failed ones too."""
    return sum(
        step["from_state"] == "idle" and step["to_state"] == "training"
        for day in days
        for step in day["transitions"]
    )


def find_alarm_days(days: Sequence[Day]) -> list[int]:
    """Return the days on which an alarm asked for training and the day before none did."""
    wishes = [day["decision"]["trigger"] not in (None, "floor", "follow_up") for day in days]
    before = [False, *wishes[:-1]]
    pairs = zip(wishes, before, strict=True)
    return [day for day, (wish, earlier) in enumerate(pairs) if wish and not earlier]


def find_recovery(values: Floats, weekly: Floats, *, change_day: int) -> int | None:
    """Count the days from a change until a policy is, for good, level with weekly retraining.

    Args:
        values: Its average precision by day.
        weekly: Weekly retraining's.
        change_day: When the world changed.

    Returns:
        Days from the change to the day after the last one on which the mean of
        ``RECOVERY_DAYS`` was more than ``ALLOWED_LOSS`` below weekly's; 0 if it never was, ``None``
        if it still is on the last day.
    """
    ours, theirs = (smooth(part, num_days=RECOVERY_DAYS) for part in (values, weekly))
    is_behind = ours < (1 - ALLOWED_LOSS) * theirs
    behind = np.flatnonzero(is_behind[change_day:])
    if not behind.size:
        return 0
    days = int(behind[-1]) + 1
    return None if change_day + days >= len(values) else days


def summarise_policy(
    days: Sequence[Day], *, weekly: Sequence[Day], change_day: int | None, is_feed_broken: bool
) -> dict[str, Any]:
    """Summarise one policy in one world: a row of the table.

    Args:
        days: Its records.
        weekly: Weekly retraining's in the same world.
        change_day: When the world, or its feed, changed; ``None`` if it never did.
        is_feed_broken: Whether it was the feed.
    """
    values = read_average_precisions(days)
    marks = [mark["mark"] for mark in find_marks(days)]
    alarms = find_alarm_days(days)
    detected = recovered = None
    if change_day is not None:
        blocked = [day["day"] for day in days if day["decision"]["action"] == "blocked"]
        seen = [day for day in (blocked if is_feed_broken else alarms) if day >= change_day]
        detected = seen[0] - change_day + 1 if seen else None
        recovered = find_recovery(values, read_average_precisions(weekly), change_day=change_day)
    # A feed that breaks leaves the world as it was: no alarm of any day is a reason to train.
    num_unchanged = len(days) if change_day is None or is_feed_broken else change_day
    transactions = sum(day["transactions"] for day in days)
    return {
        "mean_average_precision": float(np.nanmean(values)),
        "cost_per_1000": 1000 * sum(day["cost"] for day in days) / max(transactions, 1),
        "trainings": count_trainings(days),
        "promotions": marks.count("promoted"),
        "rejections": marks.count("rejected"),
        "rollbacks": marks.count("rolled back"),
        "false_alarms": len([day for day in alarms if day < num_unchanged]),
        "days_to_detect": detected,
        "days_to_recover": recovered,
    }


def judge_targets(
    config: FraudConfig, worlds: Mapping[str, Mapping[str, Any]], *, seconds: float
) -> list[dict[str, Any]]:
    """Hold ours against what it must show; a world that was not replayed has no target.

    Args:
        config: The floor, the days, and the stated rate of false alarms.
        worlds: By name: ``policies`` (name to ``summary`` and ``days``), ``change_day`` and
            ``witness`` (see ``monitoring.timelapse_witness.serve_again``).
        seconds: What all of it took.
    """
    targets = []
    num_days = config.timelapse.served_days
    if "unchanged" in worlds:
        found = worlds["unchanged"]["policies"][OURS]["summary"]
        reports = num_days / config.monitoring.window_days  # that share no row
        stated = ALARM_RATE_PER_COLUMN_RATE * config.monitoring.false_alarm_rate
        most = int(poisson.ppf(0.95, stated * reports))
        targets.append(_at_most("unchanged: false alarms", found["false_alarms"], most))
        floor_days = config.retraining.floor_days
        allowed = 0 if floor_days is None else floor(num_days / floor_days)
        targets.append(_at_most("unchanged: trainings", found["trainings"], allowed))
    for name in ("gradual", "abrupt"):
        if name in worlds:
            targets += _judge_changing(name, worlds[name]["policies"])
    if "broken_feed" in worlds:
        targets += _judge_broken(config, worlds["broken_feed"])
    for world in worlds.values():
        if world["witness"] is not None:
            targets += _judge_witness(world["witness"])
    if worlds.keys() >= {"unchanged", "gradual", "abrupt", "broken_feed"}:
        targets.append(_at_most("seconds", seconds, MAX_SECONDS))
    return targets


def _judge_changing(name: str, policies: Mapping[str, Any]) -> list[dict[str, Any]]:
    ours, weekly = (policies[policy]["summary"] for policy in (OURS, WEEKLY))
    ratio = ours["mean_average_precision"] / weekly["mean_average_precision"]
    return [
        _at_least(f"{name}: average precision, of weekly's", round(ratio, 4), 1 - ALLOWED_LOSS),
        _at_most(f"{name}: trainings", ours["trainings"], weekly["trainings"] // 2),
    ]


def _judge_broken(config: FraudConfig, world: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ask that nothing is trained while the feed is broken, and that it is named at a look."""
    settings, first = config.timelapse, world["change_day"]
    days = world["policies"][OURS]["days"]
    last = first + settings.broken_days
    named = [
        day["day"] - first + 1
        for day in days[first:last]
        if any(settings.broken_column in reason for reason in day["decision"]["reasons"])
    ]
    return [
        _at_most("broken feed: trainings while broken", count_trainings(days[first:last]), 0),
        _at_most(
            f"broken feed: days until '{settings.broken_column}' is named",
            min(named, default=settings.served_days),
            settings.look_every_days,
        ),
    ]


def _judge_witness(witness: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ask that the real service, stream and log give what the time-lapse gives."""
    return [
        _at_most("served again: feature difference", witness["max_feature_difference"], MAX_GAP),
        _at_most("served again: score difference", witness["max_score_difference"], MAX_GAP),
        _at_most("served again: degraded answers", witness["degraded"], 0),
    ]


def _at_most(name: str, value: float, target: float) -> dict[str, Any]:
    met = bool(value <= target)
    return {"name": name, "value": value, "target": target, "sense": "at_most", "met": met}


def _at_least(name: str, value: float, target: float) -> dict[str, Any]:
    met = bool(value >= target)
    return {"name": name, "value": value, "target": target, "sense": "at_least", "met": met}


def list_losses(worlds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say, world by world, which simpler policy did better than ours, and at what."""
    notes = []
    for name, world in worlds.items():
        rows = {policy: item["summary"] for policy, item in world["policies"].items()}
        ours = rows.pop(OURS)
        for policy, row in rows.items():
            lost = []
            gap = row["mean_average_precision"] - ours["mean_average_precision"]
            if gap > 0.0005:
                lost.append(f"average precision by {gap:.3f} with {row['trainings']} trainings")
            if row["cost_per_1000"] < 0.995 * ours["cost_per_1000"]:
                saved = 1 - row["cost_per_1000"] / ours["cost_per_1000"]
                lost.append(f"cost by {saved:.1%}")
            if lost:
                trained = f"(ours: {ours['trainings']} trainings)"
                notes.append(f"{name}: {policy} beats ours in {' and in '.join(lost)} {trained}")
    return notes
