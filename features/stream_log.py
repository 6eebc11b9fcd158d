"""Transactions on their way to the windows: an append-only log in partitions.

An entity belongs to one partition, so that one processor at a time updates its state; a transaction
is appended to every partition that one of its entities belongs to, as the same line.

Reading is at least once: what was read and not acknowledged is read again, by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from configs.files import write_whole
from features.fraud_state import EVENT_STATES, encode_entity
from features.stream_messages import MAX_LINE_BYTES, StreamTransaction

MAX_READ_BYTES = 4 << 20
USUAL_LINE_BYTES = 512
_read_entities = attrgetter(*(kind.key for kind in EVENT_STATES.values()))
PUBLISH_ROWS = 10_000
"""Transactions appended at once, so that publishing a long history takes little memory."""


class Entry(NamedTuple):
    """One line of a partition, and where it stands: a text of its own in the partition.

    Of a line longer than ``MAX_LINE_BYTES``, which is no transaction, the rest may be missing.
    """

    position: str
    line: bytes


class StreamLog(Protocol):
    """A partitioned log."""

    num_partitions: int

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        """Append lines to partitions; they are durable when this returns."""

    def read(self, partition: int, *, max_entries: int) -> list[Entry]:
        """Return the entries after those read so far; none if there are none yet.

        Lines that were appended together may be stored as blocks and are then read as blocks: it
        can be some more than ``max_entries``, and what was read together is acknowledged together.
        """

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

    Publishing is safe to repeat: whoever is not sure that it succeeded publishes again. Whoever
    was killed must: a part of the transactions, or of one's partitions, may have been appended.

    Args:
        log: Where to.
        messages: From ``features.stream_messages.encode_transactions``.

    Returns:
        How many transactions.
    """
    num, rest = 0, iter(messages)
    while chunk := list(islice(rest, PUBLISH_ROWS)):
        lines: dict[int, list[bytes]] = defaultdict(list)
        for message, line in chunk:
            for partition in find_partitions(message, log.num_partitions):
                lines[partition].append(line)
        log.append(lines)
        num += len(chunk)
    return num


def find_partitions(message: StreamTransaction, num_partitions: int) -> set[int]:
    """Return the partitions that the entities of a transaction belong to."""
    if num_partitions == 1:
        return {0}
    entities = _read_entities(message)
    return {encode_entity(entity) % num_partitions for entity in entities if entity is not None}


class FileLog:
    """A log in files: one of JSON lines per partition, and how much of it was acknowledged.

    Several publishers may append and several processors may read; a line that a killed publisher
    left half-written is ended by the next one, and read as an undecodable line. Appended lines
    survive the death of every process; nothing is synced, so not that of the machine.

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
        if not any(folder.glob("*.jsonl")):
            _make_files(folder, num_partitions)
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
        """Return the whole lines after those read so far; a position is where the line ends."""
        end = self._cursors.setdefault(partition, self._acknowledged(partition))
        with self._file(partition).open("rb") as file:
            file.seek(end)
            size = min(max(max_entries * USUAL_LINE_BYTES, MAX_LINE_BYTES + 1), MAX_READ_BYTES)
            block = file.read(size)
            lines = block[: block.rfind(b"\n") + 1].split(b"\n")[:-1][:max_entries]
            if not lines and len(block) == size:
                return self._read_huge(partition, file, end)
        entries = []
        for line in lines:
            end += len(line) + 1
            entries.append(Entry(f"{end:020d}", line))
        self._cursors[partition] = end
        return entries

    def _read_huge(self, partition: int, file: IO[bytes], start: int) -> list[Entry]:
        """Return the start of a line that is too long, once its end is there."""
        file.seek(start)
        beginning = file.read(MAX_LINE_BYTES + 1)
        end = start + len(beginning)
        while part := file.readline(MAX_READ_BYTES):
            end += len(part)
            if part.endswith(b"\n"):
                self._cursors[partition] = end
                return [Entry(f"{end:020d}", beginning)]
        return []

    def acknowledge(self, partition: int, entries: Sequence[Entry]) -> None:
        """Write down how far the partition was processed."""
        if entries:
            end = max(int(entry.position) for entry in entries)
            with self._file(partition).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # a late word never takes an earlier one back
                end = max(end, self._acknowledged(partition))
                with write_whole(self._mark(partition)) as part:
                    part.write_text(f"{end}\n")

    def rewind(self, partition: int) -> None:
        """Read again from the first line that was not acknowledged."""
        self._cursors.pop(partition, None)

    def count_waiting(self, partition: int) -> int:
        """Count the bytes of whole lines that are not acknowledged yet.

        What a killed publisher left of a line is not waited for: nobody may ever end it.
        """
        with self._file(partition).open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - MAX_LINE_BYTES)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1 - self._acknowledged(partition)
                end = start
        return 0

    def _acknowledged(self, partition: int) -> int:
        mark = self._mark(partition)
        return int(mark.read_text()) if mark.exists() else 0

    def _file(self, partition: int) -> Path:
        return self._folder / f"{partition:03d}.jsonl"

    def _mark(self, partition: int) -> Path:
        return self._folder / f"{partition:03d}.acknowledged"


def _make_files(folder: Path, num_partitions: int) -> None:
    """Make all partitions at once: whoever starts at the same time finds all of them or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    for partition in range(num_partitions):
        (part / f"{partition:03d}.jsonl").touch()
    part.chmod(0o755)
    try:
        part.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(part)
