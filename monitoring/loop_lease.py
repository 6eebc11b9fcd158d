"""One tick acts at a time: a lease in the database, renewed while its holder lives.

A holder that was killed leaves its lease behind. On the same machine the next tick sees that the
process is gone and takes the lease at once; else it waits until the lease runs out, since a process
that lives may be stopped or hang. A holder that slept through its own lease writes nothing more:
every transaction renews it or fails.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil
from sqlalchemy import Connection, Engine, Insert, Row, Update, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from monitoring.loop_tables import lease as table

NAME = "tick"


class LeaseTakenError(RuntimeError):
    """Another tick is at work; the message says which."""


class LeaseLostError(RuntimeError):
    """This process no longer holds the lease; it has written nothing since."""


@dataclass(frozen=True)
class Lease:
    """The right to act, until it is given back or runs out."""

    owner: str
    seconds: float

    def renew(self, connection: Connection) -> None:
        """Extend it within a transaction, which must not be committed if this raises.

        Raises:
            LeaseLostError: If somebody else has it.
        """
        renewed = connection.execute(
            update(table).where(table.c.owner == self.owner).values(until_time=self._find_end())
        )
        if renewed.rowcount != 1:
            raise LeaseLostError("another tick took over; this one stops, having changed nothing")

    def confirm(self, engine: Engine) -> None:
        """Extend it before an act outside of this database, which no transaction could undo.

        Raises:
            LeaseLostError: If somebody else has it.
        """
        with engine.begin() as connection:
            self.renew(connection)

    def _find_end(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)

    def take(self, engine: Engine) -> None:
        """Get it from nobody, or from a holder that is dead or overdue.

        Raises:
            LeaseTakenError: If somebody else has it.
        """
        process = psutil.Process()
        values = {
            "owner": self.owner,
            "host": socket.gethostname(),
            "process": process.pid,
            "process_started": process.create_time(),
            "until_time": self._find_end(),
        }
        with engine.begin() as connection:
            holder = connection.execute(select(table).where(table.c.name == NAME)).one_or_none()
            if holder is None:
                change: Insert | Update = insert(table).values(name=NAME, **values)
            elif _is_free(holder):
                # Whoever comes second finds another owner, and changes no row.
                change = update(table).where(table.c.owner == holder.owner).values(values)
            else:
                raise LeaseTakenError(
                    f"another tick is at work: process {holder.process} on {holder.host}, "
                    f"until {holder.until_time:%H:%M:%S} UTC unless it renews"
                )
            try:
                result = connection.execute(change)
            except IntegrityError:
                raise LeaseTakenError("another tick began at the same moment") from None
            if holder is not None and result.rowcount != 1:  # not every driver counts an insertion
                raise LeaseTakenError("another tick began at the same moment")

    def give_back(self, engine: Engine) -> None:
        """Let the next one in; nothing happens if this one lost it."""
        with engine.begin() as connection:
            connection.execute(delete(table).where(table.c.owner == self.owner))


@contextmanager
def hold_lease(engine: Engine, *, seconds: float) -> Iterator[Lease]:
    """Hold the lease while the block runs; a thread renews it, since training takes its time.

    Raises:
        LeaseTakenError: If somebody else has it.
    """
    held = Lease(f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"[-100:], seconds)
    held.take(engine)
    ended = threading.Event()
    renewer = threading.Thread(
        target=_renew_until, args=(held, engine, ended), name="lease", daemon=True
    )
    renewer.start()
    try:
        yield held
    finally:
        ended.set()
        renewer.join()
        held.give_back(engine)


def _renew_until(held: Lease, engine: Engine, ended: threading.Event) -> None:
    while not ended.wait(held.seconds / 3):
        try:
            held.confirm(engine)
        except OperationalError:
            continue  # a database that is away for a moment; the holder's next write will tell
        except LeaseLostError:
            return


def _is_free(holder: Row[tuple[object, ...]]) -> bool:
    """Whether a holder's lease may be taken: it ran out, or the holder died on this machine."""
    if holder.until_time < datetime.now(UTC):
        return True
    if holder.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(holder.process)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # Another process may have been given the dead one's number.
        return bool(abs(process.create_time() - holder.process_started) > 5.0)
    except psutil.NoSuchProcess:
        return True
