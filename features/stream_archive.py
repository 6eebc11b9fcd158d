"""What the stream accepted, and what it did not, kept on disk.

Accepted transactions are appended to an archive before their states are written: with the history
the feature store was built from, it holds everything the online store knows, and can rebuild it.
Refused lines go to a table of dead letters. Both may be told twice what happened once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from features.stream_log import Entry
from features.stream_messages import MAX_LINE_BYTES, StreamTransaction, build_frame, decode


class Archive:
    """Accepted lines of the stream, one file per partition.

    Args:
        get_folder: Says at each call where the files are; the folder is made when needed.
    """

    def __init__(self, get_folder: Callable[[], Path]) -> None:
        self._get_folder = get_folder

    def append(self, partition: int, lines: Sequence[bytes]) -> None:
        """Append lines, synced; a line that a killed process left half-written is ended first.

        What is acknowledged leaves the log, and a states Redis keeps no file: from then on the
        archive alone can restore it.
        """
        if lines:
            folder = self._get_folder()
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{partition:03d}.jsonl").open("ab") as file:
                file.write(b"\n" + b"\n".join(lines) + b"\n")
                file.flush()
                os.fdatasync(file.fileno())

    def load(self) -> pd.DataFrame:
        """Read every accepted transaction once, in the contract's columns, in time order."""
        messages = list(self._read())
        frame = build_frame(messages)
        if not messages:
            return frame
        frame = frame.drop_duplicates("transaction_id", keep="first")
        return frame.sort_values("event_time", kind="stable", ignore_index=True)

    def load_available_times(self) -> dict[str, int]:
        """Read when each accepted transaction first reached its publisher, microseconds, by id."""
        times: dict[str, int] = {}
        for message in self._read():
            known = times.get(message.transaction_id, message.available_time)
            times[message.transaction_id] = min(known, message.available_time)
        return times

    def _read(self) -> Iterator[StreamTransaction]:
        for path in sorted(self._get_folder().glob("*.jsonl")):
            with path.open("rb") as file:
                for line in file:
                    try:
                        yield decode(line.rstrip(b"\n"))
                    except ValueError:  # torn by a kill: not acknowledged, so it came again
                        continue


def load_earlier(folder: Path, *, build: str | None = None) -> pd.DataFrame:
    """Read what the stream accepted while other builds of the feature store were in place.

    Args:
        folder: Holds one archive per build.
        build: The build to leave out; ``None`` reads all.
    """
    names = sorted(path.name for path in folder.glob("*") if path.name != build)
    parts = [Archive(lambda name=name: folder / name).load() for name in names]  # type: ignore[misc]
    return join_transactions(*parts) if parts else pd.DataFrame()


def join_transactions(*parts: pd.DataFrame) -> pd.DataFrame:
    """Put transactions together, each once as it came first, in time order."""
    joined = pd.concat([part for part in parts if not part.empty] or [parts[0]], ignore_index=True)
    joined = joined.drop_duplicates("transaction_id", keep="first")
    return joined.sort_values("event_time", kind="stable", ignore_index=True)


class DeadLetters:
    """Lines that were refused, in a SQLite table: ``partition, position, reason, line``.

    Args:
        path: The database; made if absent.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, timeout=30.0, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS dead_letters (partition INTEGER, position TEXT,"
            " reason TEXT NOT NULL, line BLOB NOT NULL, PRIMARY KEY (partition, position, line))"
        )

    def add(self, partition: int, refused: Iterable[tuple[Entry, str]]) -> None:
        """Add refused entries with the reason; an entry that is there already changes nothing.

        Of a line that is too long the beginning is kept.
        """
        rows = [
            (partition, entry.position, reason, entry.line[:MAX_LINE_BYTES])
            for entry, reason in refused
        ]
        if rows:
            with self._connection:  # commits, or rolls back what failed
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?, ?)", rows
                )

    def count(self) -> dict[str, int]:
        """Count the letters by the first words of their reason."""
        rows = self._connection.execute("SELECT reason FROM dead_letters").fetchall()
        kinds = pd.Series([reason.split(":")[0] for (reason,) in rows], dtype=object)
        return {str(kind): int(num) for kind, num in kinds.value_counts().items()}

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
