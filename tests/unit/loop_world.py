"""A world for the loop to act in: a registry in one JSON file, and a script of what is observed.

In a file, so that a process which is killed half-way leaves behind what it had done.
"""

# ruff: noqa: ARG002 - the parts take what the real ones take
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from configs.schema import FraudConfig, load_fraud_config
from monitoring.arm_guards import ArmFinding
from monitoring.loop_machine import advance_loop
from monitoring.loop_parts import LoopParts, pass_checkpoint
from monitoring.loop_store import LoopStore
from monitoring.loop_tables import get_database_url, open_database
from monitoring.retrain import GateVerdict
from monitoring.retraining_policy import Alarm, Observation
from training.rollout import Rollout, parse_rollout

START = pd.Timestamp("2026-05-01T06:00Z")
QUIET = {
    "blocking": [], "alarm": False, "is_confirmed": False, "gate": "promote", "low": None,
    "arms": "ok", "watch": "ok",
}  # fmt: skip
QUICK = {
    "retraining.floor_days": None,
    "retraining.follow_up_days": None,
    "retraining.triggers": ["drift"],
    "retraining.min_alarms": 1,
    "retraining.min_joint_alarms": 1,
    "retraining.num_recent": 1,
    "retraining.cooldown_days": 0,
    "retraining.min_new_frauds": 0,
    "rollout.canary_shares": [0.05, 0.25],
    "rollout.shadow_days": 1,
    "rollout.canary_days": 1,
    "rollout.watch_days": 2,
    "rollout.max_wait_days": 5,
}
"""One alarm is enough, and a stage takes a day."""


class Killed(BaseException):
    """The process ends here; nothing of it runs any more."""


def make_config(runs: Path, **changes: object) -> FraudConfig:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return load_fraud_config(changes={"runs": runs, **QUICK, **dotted})


@dataclass
class LoopWorld:
    """What the loop finds and does, below ``config.runs``; version 1 is the first champion."""

    config: FraudConfig
    checkpoint: Callable[[str], None] = pass_checkpoint

    @property
    def path(self) -> Path:
        return self.config.runs / "world.json"

    def read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {
                "champion": "1",
                "previous": None,
                "rollout": None,
                "versions": {},
                "trained": [],
                "gated": [],
                "done": [],
                "trained_times": {"1": START.isoformat()},
                **QUIET,
            }
        return json.loads(self.path.read_text())

    def write(self, **changes: object) -> None:
        """Change the world whole, as a registry would."""
        self.checkpoint(f"before {sorted(changes)}")
        self.config.runs.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({**self.read(), **changes}))
        part.replace(self.path)
        self.checkpoint(f"after {sorted(changes)}")

    def observe(self, config: FraudConfig, now: pd.Timestamp) -> Observation:
        world = self.read()
        return Observation(
            now=now,
            champion=world["champion"],
            champion_trained_time=pd.Timestamp(world["trained_times"][world["champion"]]),
            blocking=tuple(world["blocking"]),
            alarms={
                "drift": Alarm(world["alarm"], "3 features drifted"),
                "matured": Alarm(world["is_confirmed"], "average precision fell"),
            },
            num_new_frauds=100,
        )

    def train(self, config: FraudConfig, now: pd.Timestamp, key: str) -> str:
        world = self.read()
        if key in world["versions"]:
            return world["versions"][key]
        if world["alarm"] == "memory":
            raise MemoryError
        if world["alarm"] == "leak":
            raise ValueError("a leak: average precision 1.0")
        version = str(len(world["trained"]) + 2)
        self.write(
            versions={**world["versions"], key: version},
            trained=[*world["trained"], key],
            trained_times={**world["trained_times"], version: now.isoformat()},
        )
        return version

    def judge(
        self, config: FraudConfig, champion: str, challenger: str, now: pd.Timestamp
    ) -> GateVerdict:
        gate, low = (self.read()[name] for name in ("gate", "low"))
        if gate == "unusable":
            raise ValueError("model.json has changed since it was written; do not use it")
        if gate == "promote":
            self.write(gated=sorted({*self.read()["gated"], challenger}))
        difference = None if gate == "wait" else 0.1
        return GateVerdict(
            gate == "promote",
            (f"gate says {gate}",),
            100,
            50,
            difference=difference,
            interval=None if low is None else [low, 0.2],
        )

    def get_champion_version(self, config: FraudConfig) -> str:
        return self.read()["champion"]

    def get_rollout(self, config: FraudConfig) -> Rollout | None:
        text = self.read()["rollout"]
        return text and parse_rollout(text)

    def set_rollout(self, config: FraudConfig, rollout: Rollout | None) -> None:
        self.write(rollout=rollout and str(rollout))

    def promote(self, config: FraudConfig, version: str, key: str) -> None:
        world = self.read()
        if world.get("damaged") == version:
            raise ValueError(f"version {version} does not load")
        done = [*world["done"], f"promote {version}"]
        self.write(champion=version, previous=world["champion"], done=done)

    def roll_back(self, config: FraudConfig, version: str, to: str, key: str) -> None:
        world = self.read()
        if world["champion"] != version:
            return
        done = [*world["done"], f"roll back {version}"]
        self.write(champion=to, done=done)

    def compare_arms(
        self, config: FraudConfig, rollout: Rollout, since: pd.Timestamp, now: pd.Timestamp
    ) -> tuple[ArmFinding, ...]:
        return (ArmFinding("declines", self.read()["arms"], f"declines are {self.read()['arms']}"),)

    def compare_with_previous(
        self,
        config: FraudConfig,
        previous: str,
        version: str,
        since: pd.Timestamp,
        now: pd.Timestamp,
    ) -> tuple[ArmFinding, ...]:
        return (ArmFinding("cost", self.read()["watch"], f"cost is {self.read()['watch']}"),)

    @property
    def parts(self) -> LoopParts:
        return LoopParts(
            observe=self.observe,
            train=self.train,
            judge=self.judge,
            get_champion_version=self.get_champion_version,
            get_rollout=self.get_rollout,
            set_rollout=self.set_rollout,
            promote=self.promote,
            roll_back=self.roll_back,
            compare_arms=self.compare_arms,
            compare_with_previous=self.compare_with_previous,
            checkpoint=self.checkpoint,
        )

    def tick(self, day: float, **changes: object) -> dict[str, Any]:
        """Change what is observed, and take one tick so many days after the start."""
        if changes:
            self.write(**changes)
        return advance_loop(self.config, now=START + pd.Timedelta(days=day), parts=self.parts)

    @contextmanager
    def open_store(self) -> Iterator[LoopStore]:
        url = get_database_url(self.config.runs, self.config.retraining.database_url)
        with open_database(url) as engine:
            yield LoopStore(engine)

    def list_steps(self) -> list[str]:
        """Return every step ever taken, as ``from -> to``."""
        with self.open_store() as store:
            steps = store.load_transitions()
        return [f"{step['from_state']} -> {step['to_state']}" for step in steps]
