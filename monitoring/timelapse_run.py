"""One world and all its policies become their days: what one process of a time-lapse does.

A world's history, features, trainings and looks are shared by its policies, so a world is the unit
of work; worlds share nothing and run side by side.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import FraudConfig
from monitoring.timelapse_evidence import Evidence
from monitoring.timelapse_models import Refit, Trainer
from monitoring.timelapse_policies import WEEKLY, Policy, list_policies
from monitoring.timelapse_replay import Replay
from monitoring.timelapse_result import summarise_policy
from monitoring.timelapse_witness import Train, serve_again
from monitoring.timelapse_worlds import World, WorldPlan, build_world, configure_world

Advance = Callable[[float], None]


@dataclass(frozen=True)
class WorldTask:
    """What a process is sent: all of it can be pickled.

    Attributes:
        config: The time-lapse's.
        plan: The world.
        folder: Where its files go.
        refit: Trains a model.
        train: The training stage, for a world that is served a second time; else ``None``.
        parameters: LightGBM's.
        transactions: The user's own file instead of a simulated world.
        mapping: Which of its columns is which.
    """

    config: FraudConfig
    plan: WorldPlan
    folder: Path
    refit: Refit
    parameters: Mapping[str, Any]
    train: Train | None = None
    transactions: Path | None = None
    mapping: Path | None = None


def replay_world(task: WorldTask, *, advance: Advance = lambda _: None) -> dict[str, Any]:
    """Build a world and replay every policy in it.

    Args:
        task: What to do.
        advance: Called with 1 after each served day of each policy.

    Returns:
        ``title``, ``change_day``, ``change_end_day``, ``num_days``, ``transactions``, ``trained``
        and ``looks`` (of all policies, what they shared counted once), ``witness`` (see
        ``serve_again``), ``seconds`` by part, and ``policies``: name to ``title``, ``summary`` and
        ``days``.
    """
    started = time.perf_counter()
    shutil.rmtree(task.folder, ignore_errors=True)
    config = configure_world(task.config, task.plan, folder=task.folder)
    with _mute_progress():
        world = build_world(config, task.plan, transactions=task.transactions, mapping=task.mapping)
    built = time.perf_counter()
    trainer = Trainer(config, world, refit=task.refit, parameters=task.parameters)
    evidence = Evidence(config, world)
    witness = _serve_again(config, world, trainer, task)
    policies = list_policies(config)
    days = {}
    for policy in sorted(policies, key=_count_asked, reverse=True):
        chosen = policy.configure(config)
        chosen = chosen.model_copy(update={"runs": task.folder / "policies" / policy.name})
        chosen.runs.mkdir(parents=True)
        replay = Replay(chosen, world, policy, trainer=trainer, evidence=evidence)
        days[policy.name] = replay.run(advance)
    return {
        "title": task.plan.title,
        "change_day": task.plan.change_day,
        "change_end_day": _find_change_end(config, task.plan),
        "num_days": world.num_days,
        "transactions": int(world.day_starts[-1] - world.day_starts[0]),
        "trained": trainer.num_trained,
        "looks": evidence.num_looks,
        "witness": witness,
        "seconds": {
            "world": round(built - started, 1),
            "policies": round(time.perf_counter() - built, 1),
        },
        "policies": {
            policy.name: {
                "title": policy.title,
                "summary": summarise_policy(
                    days[policy.name],
                    weekly=days[WEEKLY],
                    change_day=task.plan.change_day,
                    is_feed_broken=task.plan.damage is not None,
                ),
                "days": days[policy.name],
            }
            for policy in policies
        },
    }


def _count_asked(policy: Policy) -> int:
    """Count what a policy asks of a look: who asks for most goes first, and others share it."""
    return len(policy.retraining.triggers) + policy.looks_at_feed


def _serve_again(
    config: FraudConfig, world: World, trainer: Trainer, task: WorldTask
) -> dict[str, Any] | None:
    """Let the real service serve the first days too, in one of the worlds."""
    if task.train is None or config.timelapse.witness_days == 0:
        return None
    everything = np.ones(len(world.transactions))
    first = trainer.train(world.first_time, outcome_shares=everything)
    with _mute_progress():
        return serve_again(config, world, first, train=task.train, parameters=task.parameters)


def _find_change_end(config: FraudConfig, plan: WorldPlan) -> int | None:
    """Return the served day on which a change is complete, or a feed sound again."""
    if plan.change_day is None:
        return None
    if plan.damage is not None:
        return plan.change_day + plan.damage.num_days
    simulated = [change.day - config.timelapse.before_days for change in plan.changes]
    last = max(simulated, default=plan.change_day)
    return last if last > plan.change_day else None


@contextlib.contextmanager
def _mute_progress() -> Any:  # noqa: ANN401 (contextlib's own type)
    """Keep a world's own bars off the screen: several would write over each other."""
    before = sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nothing:
        sys.stderr = nothing
        try:
            yield
        finally:
            sys.stderr = before
