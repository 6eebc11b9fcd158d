"""A world and a policy become served days: score, log, look, decide, train, judge, roll out.

The loop is the real one (``monitoring.loop_machine``), ticked at every midnight and kept in its own
database; what it asks for is answered from memory instead of the registry and the log's files.
Nothing is known before its time, and every day is the same whoever replays it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from monitoring.arm_guards import ArmFinding
from monitoring.loop_machine import advance_loop
from monitoring.loop_parts import LoopParts
from monitoring.loop_tables import Database, get_database_url, open_database
from monitoring.retrain import GateVerdict
from monitoring.retraining_policy import Observation
from monitoring.timelapse_answers import Answers, Served
from monitoring.timelapse_arms import compare_arms, compare_with_previous, judge
from monitoring.timelapse_evidence import Evidence
from monitoring.timelapse_models import TrainedModel, Trainer
from monitoring.timelapse_policies import Policy
from monitoring.timelapse_worlds import DAY, World
from training.fraud_prices import read_prices
from training.rollout import Rollout


@dataclass
class Registry:
    """Versions and who serves: what MLflow keeps, in memory.

    Attributes:
        models: By version.
        champion: What serves.
        rollout: Beside it.
        serving_since: Served day from which each version has been, or was last, the champion.
    """

    models: dict[str, TrainedModel]
    champion: str
    rollout: Rollout | None = None
    serving_since: dict[str, int] = field(default_factory=dict)
    by_key: dict[str, str] = field(default_factory=dict)

    def register(self, model: TrainedModel, *, trigger_key: str) -> str:
        """Add a version, or find the one that was trained for the same key."""
        if trigger_key not in self.by_key:
            version = str(len(self.models) + 1)
            self.models[version] = replace(model, artefact=replace(model.artefact, version=version))
            self.by_key[trigger_key] = version
        return self.by_key[trigger_key]

    def make_champion(self, version: str, *, day: int) -> None:
        """Let a version answer everybody."""
        self.champion = version
        self.serving_since[version] = day
        if self.rollout is not None and self.rollout.version == version:
            self.rollout = None


class Replay:
    """One policy in one world, a day at a time.

    Args:
        config: Of the world, with the policy's sections; ``runs`` is the loop's folder.
        world: The history.
        policy: Whose loop it is.
        trainer: The world's.
        evidence: The world's.
    """

    def __init__(
        self,
        config: FraudConfig,
        world: World,
        policy: Policy,
        *,
        trainer: Trainer,
        evidence: Evidence,
    ) -> None:
        self.config = config
        self.world = world
        self.policy = policy
        self.answers = Answers(
            world, prices=read_prices(config), explore_share=config.timelapse.explore_share
        )
        self._trainer = trainer
        self._evidence = evidence
        self._day = 0
        first = trainer.train(world.first_time, outcome_shares=self.answers.outcome_shares)
        self.registry = Registry({}, "1", serving_since={"1": 0})
        self.registry.register(first, trigger_key="first")

    def run(self, advance: Callable[[float], None] = lambda _: None) -> list[dict[str, Any]]:
        """Serve every day, and tick after each.

        Returns:
            A record per day: see ``_step``.
        """
        parts = self._make_parts()
        records = []
        url = get_database_url(self.config.runs, self.config.retraining.database_url)
        with open_database(url, is_durable=False) as engine:
            for day in range(self.world.num_days):
                records.append(self._step(day, parts, engine))
                advance(1)
        return records

    def _step(self, day: int, parts: LoopParts, engine: Database) -> dict[str, Any]:
        """Serve a day and take the tick at its end.

        Returns:
            ``day``, ``champion`` and ``rollout`` (who served), ``average_precision`` (the day's,
            by the oracle), ``cost`` and ``transactions``, and of the tick ``state``, ``decision``,
            ``alarms`` and ``transitions``.
        """
        registry = self.registry
        challenger = registry.models[registry.rollout.version] if registry.rollout else None
        served = Served(
            registry.champion, registry.models[registry.champion], registry.rollout, challenger
        )
        self.answers.serve_day(day, served)
        cost, num_rows = self.answers.measure_day_cost(day)
        self._day = day + 1
        now = self.world.get_time(self._day)
        tick = advance_loop(self.config, now=now, parts=parts, engine=engine)
        decision, observation = tick["decision"], tick["observation"]
        return {
            "day": day,
            "champion": served.version,
            "rollout": served.rollout and str(served.rollout),
            "average_precision": self.answers.measure_average_precision(day, day + 1),
            "cost": cost,
            "transactions": num_rows,
            "state": tick["state"],
            "decision": {name: decision[name] for name in ("action", "trigger", "reasons")},
            "alarms": {name: alarm["is_on"] for name, alarm in observation["alarms"].items()},
            "transitions": [
                {name: step[name] for name in ("from_state", "to_state", "reasons", "trigger_key")}
                for step in tick["transitions"]
            ],
        }

    def _make_parts(self) -> LoopParts:
        registry = self.registry

        def set_rollout(_: FraudConfig, rollout: Rollout | None) -> None:
            registry.rollout = rollout

        def promote(_: FraudConfig, version: str, __: str) -> None:
            registry.make_champion(version, day=self._day)

        def roll_back(_: FraudConfig, version: str, to: str, __: str) -> None:
            if registry.champion == version:
                registry.make_champion(to, day=self._day)

        return LoopParts(
            observe=self._observe,
            train=self._train,
            judge=self._judge,
            get_champion_version=lambda _: registry.champion,
            get_rollout=lambda _: registry.rollout,
            set_rollout=set_rollout,
            promote=promote,
            roll_back=roll_back,
            compare_arms=self._compare_arms,
            compare_with_previous=self._compare_with_previous,
        )

    def _observe(self, _: FraudConfig, now: pd.Timestamp) -> Observation:
        del now  # it is the end of the day just served
        registry = self.registry
        champion = registry.models[registry.champion]
        if not self.config.retraining.triggers:
            return self._evidence.see_nothing(champion, day=self._day)
        since_day = registry.serving_since[registry.champion]
        return self._evidence.observe(
            self.answers,
            champion,
            day=self._day,
            since_day=since_day,
            triggers=self.config.retraining.triggers,
            checks_feed=self.policy.looks_at_feed,
        )

    def _train(self, _: FraudConfig, now: pd.Timestamp, trigger_key: str) -> str:
        model = self._trainer.train(now, outcome_shares=self.answers.outcome_shares)
        return self.registry.register(model, trigger_key=trigger_key)

    def _judge(
        self, config: FraudConfig, champion: str, challenger: str, now: pd.Timestamp
    ) -> GateVerdict:
        models = self.registry.models
        return judge(
            config,
            self.answers,
            champion=models[champion],
            challenger=models[challenger],
            now=now,
        )

    def _compare_arms(
        self, config: FraudConfig, rollout: Rollout, since: pd.Timestamp, now: pd.Timestamp
    ) -> tuple[ArmFinding, ...]:
        registry = self.registry
        return compare_arms(
            config,
            self.answers,
            champion=registry.models[registry.champion],
            challenger=registry.models[rollout.version],
            stage=rollout.stage,
            days=(self._count_days(since), self._day),
            now=now,
        )

    def _compare_with_previous(
        self,
        config: FraudConfig,
        previous: str,
        version: str,
        since: pd.Timestamp,
        now: pd.Timestamp,
    ) -> tuple[ArmFinding, ...]:
        models = self.registry.models
        return compare_with_previous(
            config,
            self.answers,
            previous=models[previous],
            champion=models[version],
            days=(self._count_days(since), self._day),
            now=now,
        )

    def _count_days(self, instant: pd.Timestamp) -> int:
        return int((instant - self.world.first_time) // DAY)
