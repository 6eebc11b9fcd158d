"""States in SQLite: one row per entity and state, as Feast writes and reads it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from features.feast_layout import PROJECT, decode_value, encode_entity_key, encode_value
from features.fraud_state import STATE_KEYS
from features.state_store import (
    Lease,
    LeaseLostError,
    StoreEmptyError,
    Update,
    new_token,
)

BUSY_SECONDS = 30.0
MAX_VARIABLES = 30_000
"""Ids per query; SQLite allows 32,766."""
_TABLES = """
CREATE TABLE IF NOT EXISTS stream_whole (mark INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS stream_lease (
    partition INTEGER PRIMARY KEY, token TEXT NOT NULL, expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS stream_processor (name TEXT PRIMARY KEY, seen REAL NOT NULL);
"""


class SqliteStates:
    """The states that Feast's SQLite online store holds; see ``features.state_store.StateStore``.

    Building the feature store replaces the file; it is opened anew when that has happened.

    Args:
        path: Feast's database, its tables made.

    Raises:
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, sqlite3.Connection] | None = None
        with self._transaction():
            pass

    def read(
        self, entities: Mapping[str, Sequence[str]], states: Sequence[str]
    ) -> dict[str, list[bytes | None]]:
        """Read states of entities, all as of one instant."""
        with self._transaction() as connection:
            _check_whole(connection)
            return {
                state: _read_state(connection, state, entities[STATE_KEYS[state]])
                for state in states
            }

    def write(self, updates: Sequence[Update], *, lease: Lease | None) -> None:
        """Write states in one transaction with the check of the lease and the mark."""
        with self._transaction("IMMEDIATE") as connection:
            if lease is not None:
                _check_whole(connection)
                if not _is_held(connection, lease):
                    raise LeaseLostError("the partition has another owner")
            created = _encode_time(time.time())
            for state, key in STATE_KEYS.items():
                rows = [
                    (
                        encode_entity_key(key, update.entity),
                        encode_value(update.value),
                        _encode_time(update.event_time / 1e6),
                        created,
                    )
                    for update in updates
                    if update.state == state
                ]
                if rows:
                    connection.executemany(
                        f'INSERT INTO "{_table(state)}"'
                        " (entity_key, feature_name, value, event_ts, created_ts)"
                        f" VALUES (?, '{state}', ?, ?, ?)"
                        " ON CONFLICT (entity_key, feature_name) DO UPDATE SET"
                        " value = excluded.value, event_ts = excluded.event_ts,"
                        " created_ts = excluded.created_ts",
                        rows,
                    )

    def acquire(self, partition: int, *, seconds: float) -> Lease | None:
        """Take a partition's lease if nobody holds it."""
        lease, now = Lease(partition, new_token()), time.time()
        with self._transaction("IMMEDIATE") as connection:
            taken = connection.execute(
                "INSERT INTO stream_lease VALUES (?, ?, ?) ON CONFLICT (partition) DO UPDATE SET"
                " token = excluded.token, expires = excluded.expires WHERE expires <= ?",
                (partition, lease.token, now + seconds, now),
            ).rowcount
        return lease if taken else None

    def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Prolong a lease; false if it is not held any more."""
        with self._transaction("IMMEDIATE") as connection:
            if not _is_held(connection, lease):
                return False
            connection.execute(
                "UPDATE stream_lease SET expires = ? WHERE partition = ?",
                (time.time() + seconds, lease.partition),
            )
        return True

    def release(self, lease: Lease) -> None:
        """Give a lease back, if it is still held."""
        with self._transaction("IMMEDIATE") as connection:
            connection.execute(
                "DELETE FROM stream_lease WHERE partition = ? AND token = ?",
                (lease.partition, lease.token),
            )

    def list_processors(self, processor: str, *, seconds: float) -> list[str]:
        """Say that a processor lives; list those that said so lately, sorted."""
        now = time.time()
        with self._transaction("IMMEDIATE") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO stream_processor VALUES (?, ?)", (processor, now)
            )
            connection.execute("DELETE FROM stream_processor WHERE seen < ?", (now - seconds,))
            names = connection.execute("SELECT name FROM stream_processor ORDER BY name").fetchall()
        return [name for (name,) in names]

    def forget_processor(self, processor: str) -> None:
        """Say that a processor has ended."""
        with self._transaction("IMMEDIATE") as connection:
            connection.execute("DELETE FROM stream_processor WHERE name = ?", (processor,))

    def clear(self) -> None:
        """Take the mark and the leases away, then remove every state."""
        with self._transaction("IMMEDIATE") as connection:
            connection.execute("DELETE FROM stream_whole")
            # Who merged into states read before the mark went has lost the right to write them.
            connection.execute("DELETE FROM stream_lease")
            for state in STATE_KEYS:
                connection.execute(f'DELETE FROM "{_table(state)}"')

    def mark_whole(self) -> None:
        """Say that the store holds every entity's state."""
        with self._transaction("IMMEDIATE") as connection:
            connection.execute("INSERT OR IGNORE INTO stream_whole VALUES (1)")

    def is_whole(self) -> bool:
        """Whether the store holds every entity's state."""
        with self._transaction() as connection:
            return connection.execute("SELECT 1 FROM stream_whole").fetchone() is not None

    @contextmanager
    def _transaction(self, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
        connection = self._connect()
        connection.execute(f"BEGIN {kind}")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself ends one that finds the disk full
                connection.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        inode = self._path.stat().st_ino
        if self._opened is None or self._opened[0] != inode:
            if self._opened is not None:
                self._opened[1].close()
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                raise ValueError(
                    f"{self._path} is damaged ({error}); run `throughline fraud features`"
                ) from error
            self._opened = inode, connection
        return self._opened[1]


def _prepare(connection: sqlite3.Connection) -> None:
    """Make what Feast does not: the stream's tables, and those of entities no history names."""
    connection.execute("PRAGMA journal_mode = WAL")  # readers go on while one writes
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_TABLES)
    for state in STATE_KEYS:  # Feast makes those whose entities the history names
        connection.execute(
            f'CREATE TABLE IF NOT EXISTS "{_table(state)}" (entity_key BLOB,'
            " feature_name TEXT, value BLOB, value_text TEXT, vector_value BLOB,"
            " event_ts timestamp, created_ts timestamp,"
            " PRIMARY KEY (entity_key, feature_name))"
        )


def _read_state(
    connection: sqlite3.Connection, state: str, entities: Sequence[str]
) -> list[bytes | None]:
    keys = [encode_entity_key(STATE_KEYS[state], entity) for entity in entities]
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), MAX_VARIABLES):
        asked = keys[start : start + MAX_VARIABLES]
        marks = ",".join("?" * len(asked))
        query = f'SELECT entity_key, value FROM "{_table(state)}" WHERE entity_key IN ({marks})'
        found |= dict(connection.execute(query, asked))
    return [decode_value(found[key]) if key in found else None for key in keys]


def _check_whole(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT 1 FROM stream_whole").fetchone() is None:
        raise StoreEmptyError


def _is_held(connection: sqlite3.Connection, lease: Lease) -> bool:
    held = connection.execute(
        "SELECT 1 FROM stream_lease WHERE partition = ? AND token = ? AND expires > ?",
        (lease.partition, lease.token, time.time()),
    )
    return held.fetchone() is not None


def _encode_time(seconds: float) -> int:
    """Encode an instant as Feast's SQLite store does: UTC without a zone, read as local time."""
    return int(datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).timestamp())


def _table(state: str) -> str:
    return f"{PROJECT}_{state}_state"
