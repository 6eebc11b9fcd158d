"""The loop's database becomes plain values for the status; where there is none, none is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from configs.schema import FraudConfig
from monitoring.loop_records import OPEN, Attempt
from monitoring.loop_store import LoopStore
from monitoring.loop_tables import (
    get_database_path,
    get_database_url,
    open_database,
    ticks,
    transitions,
)
from monitoring.status_evidence import Evidence, read_tick


@dataclass(frozen=True)
class LoopRecord:
    """What the loop's database says.

    Attributes:
        note: Why there is nothing, where there is nothing.
        ticks: The last ones, in time order.
        attempts: Those that are open, oldest first.
        transitions: The last ones, newest first: ``time``, ``from_state``, ``to_state``,
            ``trigger_key``, ``who`` and ``reasons``.
    """

    note: str | None = None
    ticks: tuple[Evidence, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    transitions: tuple[dict[str, Any], ...] = ()


def read_loop(config: FraudConfig, *, num_ticks: int, num_transitions: int) -> LoopRecord:
    """Read the newest records of the loop.

    Args:
        config: ``runs`` and ``retraining.database_url`` say where the database is.
        num_ticks: How many ticks at most.
        num_transitions: How many transitions at most.
    """
    if not _has_database(config):
        return LoopRecord("the loop has not run yet: `throughline fraud tick` takes its first step")
    try:
        with _open(config) as engine:
            attempts = LoopStore(engine).load_attempts()
            with engine.begin() as connection:
                last_ticks = connection.execute(
                    select(ticks).order_by(ticks.c.time.desc()).limit(num_ticks)
                ).all()
                steps = connection.execute(
                    select(transitions).order_by(transitions.c.id.desc()).limit(num_transitions)
                ).all()
    except (SQLAlchemyError, RuntimeError) as error:
        return LoopRecord(f"the loop's database cannot be read: {' '.join(str(error).split())}")
    return LoopRecord(
        ticks=tuple(read_tick(row.observation, row.decision) for row in reversed(last_ticks)),
        attempts=tuple(attempt for attempt in attempts if attempt.state in OPEN),
        transitions=tuple(
            {
                "time": row.time.isoformat(),
                "from_state": row.from_state,
                "to_state": row.to_state,
                "trigger_key": row.trigger_key,
                "who": row.who,
                "reasons": list(row.reasons),
            }
            for row in steps
        ),
    )


def read_tick_looks(config: FraudConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each tick of the loop found and decided, as ``monitor.json`` holds it, by name."""
    if not _has_database(config):
        return
    with _open(config) as engine, engine.begin() as connection:
        rows = connection.execute(select(ticks).order_by(ticks.c.time)).all()
    for row in rows:
        if found := row.observation["evidence"]:
            yield f"tick {row.time.isoformat()}", {**found, "decision": row.decision}


def _has_database(config: FraudConfig) -> bool:
    """Whether there is one to read; asking makes none."""
    is_elsewhere = config.retraining.database_url is not None
    return is_elsewhere or get_database_path(config.runs).is_file()


def _open(config: FraudConfig) -> AbstractContextManager[Engine]:
    return open_database(get_database_url(config.runs, config.retraining.database_url))
