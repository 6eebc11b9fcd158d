"""The loop's database: four tables, in SQLite (a file of the runs folder) or in PostgreSQL.

``ticks`` holds what each tick saw and decided, ``attempts`` where each attempt stands,
``transitions`` every step one ever took, ``lease`` who may act. Times that end in ``_time`` are the
loop's own (``now`` of a tick, which a replay may set); ``recorded_time`` is the clock on the wall.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

BUSY_SECONDS = 30
"""How long a transaction, which takes milliseconds, may wait for another one to end."""

Database = Engine
"""The loop's, open, for those who know nothing of SQLAlchemy and hand it on."""
DatabaseError = SQLAlchemyError
"""Whatever goes wrong with the loop's database, for those who know nothing of SQLAlchemy."""


class UtcTime(TypeDecorator[pd.Timestamp]):
    """A UTC instant to the microsecond; SQLite keeps no zone, so it is put back when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware time into Python's, in UTC."""
        del dialect
        if value is None:
            return None
        return pd.Timestamp(value).tz_convert("UTC").floor("us").to_pydatetime()

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> pd.Timestamp | None:
        """Return an aware time in UTC."""
        del dialect
        if value is None:
            return None
        found = pd.Timestamp(value)
        return found.tz_localize("UTC") if found.tzinfo is None else found.tz_convert("UTC")


metadata = MetaData()

ticks = Table(
    "ticks",
    metadata,
    Column("time", UtcTime, primary_key=True),
    Column("day", String(10), nullable=False, index=True),
    Column("recorded_time", UtcTime, nullable=False),
    Column("observation", JSON, nullable=False),
    Column("decision", JSON, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trigger_key", String(200), nullable=False, unique=True),
    Column("trigger", String(20), nullable=False),
    Column("champion", String(40), nullable=False),
    Column("challenger", String(40)),
    Column("state", String(20), nullable=False),
    Column("step", Integer, nullable=False),
    Column("share", Float, nullable=False),
    Column("is_applied", Boolean, nullable=False),
    Column("is_frozen", Boolean, nullable=False),
    Column("num_tries", Integer, nullable=False),
    Column("opened_time", UtcTime, nullable=False),
    Column("state_time", UtcTime, nullable=False),
    Column("settled_time", UtcTime),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("attempt_id", ForeignKey(attempts.c.id), index=True),
    Column("trigger_key", String(200)),
    Column("from_state", String(20), nullable=False),
    Column("to_state", String(20), nullable=False),
    Column("step", Integer, nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("recorded_time", UtcTime, nullable=False),
    Column("who", String(200), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("owner", String(100), nullable=False),
    Column("host", String(255), nullable=False),
    Column("process", Integer, nullable=False),
    Column("process_started", Float, nullable=False),
    Column("until_time", UtcTime, nullable=False),
)


def get_database_url(runs: Path, database_url: str | None) -> str:
    """Return the address of the loop's database: the one configured, else a file below ``runs``."""
    return database_url or f"sqlite:///{get_database_path(runs)}"


def get_database_path(runs: Path) -> Path:
    """Return where the loop's SQLite database is, whether or not it is there or used."""
    return (runs / "retraining.db").absolute()


@contextmanager
def open_database(url: str, *, is_durable: bool = True) -> Iterator[Database]:
    """Connect to the loop's database; its tables, and SQLite's folder, are made where absent.

    Args:
        url: As SQLAlchemy writes it.
        is_durable: ``False`` lets SQLite wait for no disk: for what is begun anew when it is cut.

    Raises:
        ValueError: If the address is none, or there is no driver for it. It does not quote the
            address, which may hold a password.
    """
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        is_module = isinstance(error, NoSuchModuleError | ModuleNotFoundError)
        raise ValueError(
            f"retraining.database_url: {error if is_module else 'no address of a database'}; write "
            "postgresql+psycopg://user:password@host/database, and install psycopg"
        ) from None  # what could not be read may be a part of the password
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        if not is_durable:
            event.listen(engine, "connect", _wait_for_no_disk)
        event.listen(engine, "begin", _begin_immediate)
    try:
        metadata.create_all(engine)
        yield engine
    finally:
        engine.dispose()


def _prepare_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own
    """Survive a kill at any instant, let readers read meanwhile, and wait for other writers.

    Source: SQLAlchemy's documentation of the SQLite dialect, on transactions: the driver must not
        begin them itself.
    """
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _wait_for_no_disk(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own
    connection.execute("PRAGMA synchronous = OFF")


def _begin_immediate(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's, of any driver
    """Take the right to write first: a reader that wants to write later could not wait for it."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
