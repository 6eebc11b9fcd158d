"""A history's span becomes the demo's instants, and its steps a timeline with their seconds.

Every instant lies within the history: what the demo serves, monitors and trains on has happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pandas as pd

from configs.schema import FraudConfig
from configs.sections import WorldChange


@dataclass(frozen=True)
class Calendar:
    """The demo's instants, UTC.

    Attributes:
        serve: The service starts.
        change: The world changes.
        replayed: The first days after the change end.
        late: The last days begin; by then a model can have learnt from the change.
        present: The history ends.
    """

    serve: pd.Timestamp
    change: pd.Timestamp
    replayed: pd.Timestamp
    late: pd.Timestamp
    present: pd.Timestamp


@dataclass
class Story:
    """What happened so far: seconds by step, and the timeline the page shows."""

    seconds: dict[str, float] = field(default_factory=dict)
    timeline: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure one step's wall time."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def tell(self, instant: pd.Timestamp, title: str, detail: str) -> None:
        """Add an event of the simulated calendar."""
        self.timeline.append({"time": instant.isoformat(), "title": title, "detail": detail})


def plan_calendar(
    first: pd.Timestamp,
    last: pd.Timestamp,
    *,
    serve_from: float,
    replay_days: int,
    late_days: int,
) -> Calendar:
    """Lay the demo's instants into a history.

    Args:
        first: Time of the first transaction.
        last: Time of the last one.
        serve_from: Share of the history's days after which the first model goes live.
        replay_days: Days scored over HTTP before the change, and as many after.
        late_days: Days scored over HTTP at the end, at most.

    Raises:
        ValueError: If the history is too short for it.
    """
    start = first.normalize()
    num_days = (last - start).days + 1
    serve = start + pd.Timedelta(days=round(serve_from * num_days))
    change = serve + pd.Timedelta(days=replay_days)
    replayed = change + pd.Timedelta(days=replay_days)
    present = last + pd.Timedelta(microseconds=1)
    if replayed > present:
        raise ValueError(
            f"the history has {num_days} days; the demo's calendar (demo.serve_from, "
            "demo.replay_days) reaches past its end"
        )
    late = max(replayed, present.normalize() - pd.Timedelta(days=late_days - 1))
    return Calendar(serve, change, replayed, late, present)


def schedule_change(config: FraudConfig) -> FraudConfig:
    """Return the configuration with the demo's change in its world, on the calendar's day."""
    days = config.world_size.num_days
    day = round(config.demo.serve_from * days) + config.demo.replay_days
    change = WorldChange(day=day, **config.demo.change.model_dump())
    data = config.data.model_copy(update={"changes": (*config.data.changes, change)})
    return config.model_copy(update={"data": data})


def leave_out_floor(config: FraudConfig) -> FraudConfig:
    """Return the configuration without a floor.

    Most days are not served, so the calendar would be the first to ask for a training, whatever the
    world did.
    """
    retraining = config.retraining.model_copy(update={"floor_days": None})
    return config.model_copy(update={"retraining": retraining})


def describe_change(config: FraudConfig) -> str:
    """Name what the demo's change multiplies, as ``amounts x 1.3, ip_ring x 4``."""
    change = config.demo.change
    factors = {"volume": change.volume_factor, "amounts": change.amount_factor}
    named = {**factors, **change.pattern_factors}
    return ", ".join(f"{name} x {value:g}" for name, value in named.items() if value != 1)
