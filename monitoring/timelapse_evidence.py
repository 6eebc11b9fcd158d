"""Answers and a world become the evidence of one tick: the monitor's own, from memory.

A look takes most of a second, so one is taken every few days: what it found of the feed stands
until the next, while its alarms count on its own day alone. What a policy does not listen to is not
measured for it, and a look that was taken for a policy serves those that ask for less of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from monitoring.fraud_evidence import Material, Window
from monitoring.fraud_weighing import weigh_evidence
from monitoring.retraining_policy import Observation, Trigger
from monitoring.timelapse_answers import Answers
from monitoring.timelapse_models import TrainedModel
from monitoring.timelapse_worlds import DAY, World

Asked = frozenset[Trigger | Literal["feed"]]
"""What a look is for: which triggers, and whether the feed is sound."""
NEVER = 1_000_000_000
"""More rows than a window has: below so many, no drift is measured."""


class Evidence:
    """What a world's policies are told at their ticks.

    Args:
        config: Of the world.
        world: The history.

    Attributes:
        num_looks: Taken so far.
    """

    def __init__(self, config: FraudConfig, world: World) -> None:
        self.num_looks = 0
        self._config = config
        self._world = world
        self._looks: dict[tuple[str, int, str], dict[Asked, Observation]] = {}

    def observe(
        self,
        answers: Answers,
        champion: TrainedModel,
        *,
        day: int,
        since_day: int,
        triggers: Collection[Trigger],
        checks_feed: bool,
    ) -> Observation:
        """Look as of a midnight, or repeat what the last look said of the feed.

        Args:
            answers: Of the policy.
            champion: What serves.
            day: Served days so far.
            since_day: Served day from which the champion has answered.
            triggers: What the policy listens to.
            checks_feed: Whether it asks if the feed is sound.
        """
        now = self._world.get_time(day)
        look_day = day - day % self._config.timelapse.look_every_days
        if look_day <= since_day:
            return self._see_nothing(champion, now)
        asked: Asked = frozenset([*triggers, "feed"] if checks_feed else triggers)
        found = self._look(answers, champion, look_day, asked)
        if look_day < day:
            found = replace(found, now=now, alarms={})
        return replace(found, champion=champion.artefact.version)

    def see_nothing(self, champion: TrainedModel, *, day: int) -> Observation:
        """Return what a policy is told that looks at nothing but the calendar."""
        return self._see_nothing(champion, self._world.get_time(day))

    def _see_nothing(self, champion: TrainedModel, now: pd.Timestamp) -> Observation:
        return Observation(
            now=now,
            champion=champion.artefact.version,
            champion_trained_time=champion.split.now,
            blocking=(),
            alarms={},
            num_new_frauds=0,
        )

    def _look(
        self, answers: Answers, champion: TrainedModel, day: int, asked: Asked
    ) -> Observation:
        key = (champion.key, day, _name_answers(answers, champion, day))
        looks = self._looks.setdefault(key, {})
        if not any(asked <= taken for taken in looks):
            self.num_looks += 1
            now = self._world.get_time(day)
            since = now - self._config.monitoring.window_days * DAY
            window = Window(now, since, now, is_chosen=False)
            material = self._collect(answers, champion, day)
            config = _narrow(self._config, asked)
            found = weigh_evidence(config, material, window, checks_feed="feed" in asked)
            looks[asked] = replace(found.observe(), evidence={})
        return _tell(next(looks[taken] for taken in looks if asked <= taken), asked)

    def _collect(self, answers: Answers, champion: TrainedModel, day: int) -> Material:
        """Gather what is known at a midnight of all days the champion was made from, and since."""
        world, now = self._world, self._world.get_time(day)
        times = world.transactions["event_time"]
        first, last = times.searchsorted([champion.split.train.start_time, now])
        served = max(first, world.day_starts[0])
        return Material(
            champion=champion.artefact,
            reference=champion.reference,
            predictions=answers.select(0, day).loc[served:],
            features=world.features.iloc[served:last],
            history=world.numbered.iloc[first:last],
            labels=world.numbered_labels.iloc[first:last],
        )


def _narrow(config: FraudConfig, asked: Asked) -> FraudConfig:
    """Leave out what costs time and nobody listens to: by asking for more rows than there are."""
    if "drift" not in asked:
        monitoring = config.monitoring.model_copy(update={"min_rows": NEVER})
        config = config.model_copy(update={"monitoring": monitoring})
    if not asked & {"matured", "estimated"}:
        training = config.training.model_copy(update={"num_bootstrap": 1})
        config = config.model_copy(update={"training": training})
    return config


def _tell(found: Observation, asked: Asked) -> Observation:
    """Tell what was asked for, and nothing else that the look has seen."""
    alarms = {trigger: alarm for trigger, alarm in found.alarms.items() if trigger in asked}
    return replace(found, alarms=alarms, blocking=found.blocking if "feed" in asked else ())


def _name_answers(answers: Answers, champion: TrainedModel, day: int) -> str:
    """Name all that a look depends on beside the model and the day."""
    world = answers.world
    first = int(world.transactions["event_time"].searchsorted(champion.split.train.start_time))
    served, until = world.day_starts[[0, day]]
    seen = answers.outcome_shares[first:until]
    mine = answers.find_rows_of(champion.artefact.version)[: until - served]
    return hashlib.sha256(seen.tobytes() + np.packbits(mine).tobytes()).hexdigest()
