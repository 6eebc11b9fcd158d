"""Transactions on their way to the windows: an append-only log in partitions.

An entity belongs to one partition, so that one processor at a time updates its state; a transaction
is appended to every partition that one of its entities belongs to, as the same line.

Reading is at least once: what was read and not acknowledged is read again, by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from configs.files import write_whole
from features.fraud_state import EVENT_STATES, encode_entity
from features.stream_messages import StreamTransaction

MAX_READ_BYTES = 4 << 20


class Entry(NamedTuple):
    """One line of a partition, and where it stands: an order-preserving text."""

    position: str
    line: bytes


class StreamLog(Protocol):
    """A partitioned log."""

    num_partitions: int

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        """Append lines to partitions; they are durable when this returns."""

    def read(self, partition: int, *, max_entries: int) -> list[Entry]:
        """Return the entries after those read so far; none if there are none yet."""

    def acknowledge(self, partition: int, entries: Sequence[Entry]) -> None:
        """Say that entries were processed: nobody reads them again."""

    def rewind(self, partition: int) -> None:
        """Read again from the first entry that was not acknowledged."""

    def count_waiting(self, partition: int) -> int:
        """Count what is not acknowledged yet: bytes or entries, 0 when all is done."""


def find_partition(entity: str, num_partitions: int) -> int:
    """Return the partition an entity belongs to.

    >>> find_partition("c1", 1)
    0
    """
    return encode_entity(entity) % num_partitions


def publish(log: StreamLog, messages: Iterable[tuple[StreamTransaction, bytes]]) -> int:
    """Append transactions to the partitions of their entities.

    Publishing is safe to repeat: whoever is not sure that it succeeded publishes again.

    Args:
        log: Where to.
        messages: From ``features.stream_messages.encode_transactions``.

    Returns:
        How many transactions.
    """
    lines: dict[int, list[bytes]] = defaultdict(list)
    num = 0
    for message, line in messages:
        num += 1
        for partition in find_partitions(message, log.num_partitions):
            lines[partition].append(line)
    log.append(lines)
    return num


def find_partitions(message: StreamTransaction, num_partitions: int) -> set[int]:
    """Return the partitions that the entities of a transaction belong to."""
    if num_partitions == 1:
        return {0}
    entities = (getattr(message, kind.key) for kind in EVENT_STATES.values())
    return {find_partition(entity, num_partitions) for entity in entities if entity is not None}


class FileLog:
    """A log in files: one of JSON lines per partition, and how much of it was acknowledged.

    Several publishers may append and several processors may read; a line that a killed publisher
    left half-written is ended by the next one, and read as an undecodable line.

    Args:
        folder: Where the files are; made if absent.
        num_partitions: How many partitions; a log is never given another number.

    Raises:
        ValueError: If the folder holds a log with another number of partitions.
    """

    def __init__(self, folder: Path, *, num_partitions: int) -> None:
        self.num_partitions = num_partitions
        self._folder = folder
        self._cursors: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for partition in range(num_partitions):
            self._file(partition).touch()
        found = len(list(folder.glob("*.jsonl")))
        if found != num_partitions:
            raise ValueError(
                f"the log in {folder} has {found} partitions; set stream.num_partitions={found},"
                " or remove the folder once everything in it was processed"
            )

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        """Append lines to partitions, each partition's in one write."""
        for partition, new in sorted(lines.items()):
            with self._file(partition).open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    torn = file.read(1) != b"\n"
                    file.write(b"\n" if torn else b"")
                file.write(b"".join(line + b"\n" for line in new))

    def read(self, partition: int, *, max_entries: int) -> list[Entry]:
        """Return the whole lines after those read so far."""
        start = self._cursors.setdefault(partition, self._acknowledged(partition))
        with self._file(partition).open("rb") as file:
            file.seek(start)
            block = file.read(MAX_READ_BYTES)
        entries = []
        for line in block[: block.rfind(b"\n") + 1].split(b"\n")[:-1][:max_entries]:
            entries.append(Entry(f"{start:020d}", line))
            start += len(line) + 1
        self._cursors[partition] = start
        return entries

    def acknowledge(self, partition: int, entries: Sequence[Entry]) -> None:
        """Write down how far the partition was processed."""
        if entries:
            end = max(int(entry.position) + len(entry.line) + 1 for entry in entries)
            with write_whole(self._mark(partition)) as part:
                part.write_text(f"{end}\n")

    def rewind(self, partition: int) -> None:
        """Read again from the first line that was not acknowledged."""
        self._cursors.pop(partition, None)

    def count_waiting(self, partition: int) -> int:
        """Count the bytes that are not acknowledged yet."""
        return self._file(partition).stat().st_size - self._acknowledged(partition)

    def _acknowledged(self, partition: int) -> int:
        mark = self._mark(partition)
        return int(mark.read_text()) if mark.exists() else 0

    def _file(self, partition: int) -> Path:
        return self._folder / f"{partition:03d}.jsonl"

    def _mark(self, partition: int) -> Path:
        return self._folder / f"{partition:03d}.acknowledged"
