"""What the loop remembers: each tick, each attempt and where it stands, each step it ever took.

Each write is one transaction, which renews the lease that the store was given, or changes nothing:
a tick that lost its lease while it slept cannot act on what it believed. An attempt is only written
if it still is what its writer read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Engine, and_, func, insert, select, update

from monitoring.loop_lease import Lease, LeaseLostError
from monitoring.loop_records import ACTIVE, OPEN, WITHOUT_EFFECT, Attempt, Change, describe_place
from monitoring.loop_tables import attempts, ticks, transitions
from monitoring.retraining_policy import Decision, History, Observation, read_observation


class LoopStore:
    """The loop's database, for the tick that holds the lease, or for a reader."""

    def __init__(self, engine: Engine, *, lease: Lease | None = None) -> None:
        self.engine = engine
        self.lease = lease

    def load_attempts(self) -> list[Attempt]:
        """Return every attempt there was, oldest first."""
        with self.engine.begin() as connection:
            rows = connection.execute(select(attempts).order_by(attempts.c.id)).all()
        return [Attempt(**row._mapping) for row in rows]

    def load_unfinished(self) -> list[Attempt]:
        """Return attempts that are open or whose end has not been carried out, oldest first."""
        return [item for item in self.load_attempts() if item.state in OPEN or not item.is_applied]

    def load_history(self, now: pd.Timestamp, *, num_days: int) -> History:
        """Return what a decision at ``now`` looks back on.

        Args:
            now: As of when; ticks from then on are left out.
            num_days: How many days' last ticks are wanted, ``now``'s own not counted.
        """
        last_ticks = (
            select(func.max(ticks.c.time))
            .where(ticks.c.time < now)
            .group_by(ticks.c.day)
            .order_by(ticks.c.day.desc())
            .limit(num_days + 1)
        )
        with self.engine.begin() as connection:
            seen = connection.execute(
                select(ticks.c.observation)
                .where(ticks.c.time.in_(last_ticks))
                .order_by(ticks.c.time)
            ).all()
        every = self.load_attempts()
        active = next((item for item in every if item.state in ACTIVE), None)
        trained = max(
            (item for item in every if item.challenger is not None),
            key=lambda item: item.opened_time,
            default=None,
        )
        settled = [item.settled_time for item in every if item.settled_time is not None]
        return History(
            recent=tuple(read_observation(row.observation) for row in seen),
            active=None if active is None else describe_place(active),
            attempt_times=tuple(item.opened_time for item in every),
            trained_time=None if trained is None else trained.opened_time,
            unfinished_time=None if trained is None else self._find_unfinished(trained),
            settled_time=max(settled, default=None),
            keys=frozenset(item.trigger_key for item in every),
        )

    def _find_unfinished(self, trained: Attempt) -> pd.Timestamp | None:
        """Return when an attempt began, if alarms confirmed one another or the gate saw a gain.

        A gain over a champion that nothing was said against is what a newer model has anyhow; and
        what a guard or a person took back has shown that more of it does not help.
        """
        if trained.state in ("rolled_back", "superseded"):
            return None
        decided = select(ticks.c.decision).where(ticks.c.time == trained.opened_time)
        judged = select(transitions.c.evidence).where(
            transitions.c.attempt_id == trained.id, transitions.c.from_state == "judging"
        )
        with self.engine.begin() as connection:
            decision = connection.execute(decided).scalar() or {}
            verdicts = connection.execute(judged).scalars().all()
        alarms = set(decision.get("wishes", ())) - {"floor", "follow_up"}
        intervals = [verdict.get("interval") for verdict in verdicts]
        is_shown = any(interval is not None and interval[0] > 0 for interval in intervals)
        was_asked = trained.trigger != "floor"
        return trained.opened_time if len(alarms) > 1 or (is_shown and was_asked) else None

    def find_last_tick(self) -> pd.Timestamp | None:
        """Return the ``now`` of the latest tick."""
        with self.engine.begin() as connection:
            return connection.execute(
                select(ticks.c.time).order_by(ticks.c.time.desc()).limit(1)
            ).scalar()

    def load_decisions(self, *, limit: int = 20) -> list[dict[str, Any]]:
        """Return the latest ticks, oldest first: ``time``, ``observation`` and ``decision``."""
        columns = (ticks.c.time, ticks.c.observation, ticks.c.decision)
        with self.engine.begin() as connection:
            rows = connection.execute(
                select(*columns).order_by(ticks.c.time.desc()).limit(limit)
            ).all()
        return [{**row._mapping, "time": row.time.isoformat()} for row in reversed(rows)]

    def record_tick(self, observation: Observation, decision: Decision) -> Attempt | None:
        """Write down a tick, and open the attempt it decided on: both or neither.

        A tick at the same ``now`` as an earlier one is the same day's evidence: it replaces the
        earlier one, unless that one trained.

        Returns:
            The attempt opened; ``None`` if the decision was another, or its key exists already.
        """
        values = {
            "recorded_time": datetime.now(UTC),
            "observation": observation.describe(),
            "decision": asdict(decision),
        }
        with self._write() as connection:
            is_at = ticks.c.time == observation.now
            found = connection.execute(select(ticks.c.decision).where(is_at)).scalar()
            if found is None:
                day = f"{observation.now.tz_convert('UTC'):%Y-%m-%d}"
                connection.execute(insert(ticks).values(time=observation.now, day=day, **values))
            elif found["action"] != "train":
                connection.execute(update(ticks).where(is_at).values(values))
            if decision.key is None:
                return None
            return _open_attempt(connection, observation, decision)

    def move(
        self,
        attempt: Attempt,
        change: Change,
        *,
        now: pd.Timestamp,
    ) -> Attempt:
        """Take a step: the attempt's new place and the record of how it came there, together.

        The new state is an intent until it is saved as applied.

        Args:
            attempt: Where it stood.
            change: The step.
            now: As of when.

        Returns:
            Where it stands.

        Raises:
            LeaseLostError: If it no longer stands where it stood.
        """
        keeps_time = change.to_state in (*ACTIVE, "done")
        moved = replace(
            attempt,
            challenger=change.challenger or attempt.challenger,
            state=change.to_state,
            step=change.step,
            share=change.share,
            is_applied=change.to_state in WITHOUT_EFFECT,
            is_frozen=False,
            state_time=now,
            settled_time=attempt.settled_time if keeps_time else now,
        )
        return self.save(attempt, moved, change=change, now=now)

    def save(
        self,
        before: Attempt,
        after: Attempt,
        *,
        change: Change | None = None,
        now: pd.Timestamp | None = None,
    ) -> Attempt:
        """Write an attempt that still is what it was; with ``change``, the record of it too.

        Raises:
            LeaseLostError: If it is not.
        """
        is_same = and_(
            attempts.c.id == before.id,
            attempts.c.state == before.state,
            attempts.c.step == before.step,
            attempts.c.is_applied == before.is_applied,
        )
        with self._write() as connection:
            if (
                connection.execute(
                    update(attempts).where(is_same).values(_read_columns(after))
                ).rowcount
                != 1
            ):
                raise LeaseLostError(f"somebody else moved {before.trigger_key}; nothing changed")
            if change is not None:
                _record(connection, change, attempt=after, from_state=before.state, time=now)
        return after

    def record_manual(
        self, change: Change, *, attempts: Sequence[Attempt], now: pd.Timestamp
    ) -> None:
        """Take the same step with some attempts; without any, write down only that it happened."""
        for attempt in attempts:
            self.move(attempt, change, now=now)
        if not attempts:
            with self._write() as connection:
                _record(connection, change, attempt=None, from_state="idle", time=now)

    def load_transitions(self, *, after_id: int = 0) -> list[dict[str, Any]]:
        """Return the steps recorded after one, oldest first, as JSON."""
        with self.engine.begin() as connection:
            rows = connection.execute(
                select(transitions).where(transitions.c.id > after_id).order_by(transitions.c.id)
            ).all()
        return [
            {
                name: value.isoformat() if isinstance(value, pd.Timestamp) else value
                for name, value in row._mapping.items()
            }
            for row in rows
        ]

    def find_last_transition(self) -> int:
        """Return the number of the last step recorded; 0 if there is none."""
        with self.engine.begin() as connection:
            return connection.execute(select(func.max(transitions.c.id))).scalar() or 0

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """Begin a transaction; it fails if a lease was given and is lost."""
        with self.engine.begin() as connection:
            if self.lease is not None:
                self.lease.renew(connection)
            yield connection


def _open_attempt(
    connection: Connection, observation: Observation, decision: Decision
) -> Attempt | None:
    known = select(attempts.c.id).where(attempts.c.trigger_key == decision.key)
    if connection.execute(known).one_or_none() is not None:
        return None
    assert decision.key is not None
    assert decision.trigger is not None, "a key has its trigger"
    attempt = Attempt(
        id=0,
        trigger_key=decision.key,
        trigger=decision.trigger,
        champion=observation.champion,
        challenger=None,
        state="training",
        step=0,
        share=0.0,
        is_applied=True,
        is_frozen=False,
        num_tries=0,
        opened_time=observation.now,
        state_time=observation.now,
        settled_time=None,
    )
    found = connection.execute(insert(attempts).values(_read_columns(attempt)))
    assert found.inserted_primary_key is not None
    attempt = replace(attempt, id=found.inserted_primary_key[0])
    change = Change("training", decision.reasons, observation.describe())
    _record(connection, change, attempt=attempt, from_state="idle", time=observation.now)
    return attempt


def _record(
    connection: Connection,
    change: Change,
    *,
    attempt: Attempt | None,
    from_state: str,
    time: pd.Timestamp | None,
) -> None:
    """Write down a step; one of no attempt's is a person's."""
    connection.execute(
        insert(transitions).values(
            attempt_id=attempt and attempt.id,
            trigger_key=attempt and attempt.trigger_key,
            from_state=from_state,
            to_state=change.to_state,
            step=change.step,
            time=time,
            recorded_time=datetime.now(UTC),
            who=change.who,
            reasons=list(change.reasons),
            evidence=dict(change.evidence),
        )
    )


def _read_columns(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt's row, without the number that the database gives it."""
    return {name: value for name, value in asdict(attempt).items() if name != "id"}
