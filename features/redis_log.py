"""The log in Redis: one stream per partition, read by one consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from features.feast_layout import PROJECT
from features.redis_link import pack
from features.redis_pipe import RedisPipe, call_together
from features.stream_log import Entry

GROUP = "processors"
CONSUMER = "owner"
"""The group's one consumer: whoever reads a partition holds its lease, whichever process it is."""
LINES_PER_ENTRY = 100
"""A stream's entry holds this many lines at most: Redis then works once per hundred."""
_LINES = b"lines"
_PARTITIONS = f"{PROJECT}:partitions"


class RedisLog:
    """A log in Redis Streams; see ``features.stream_log.StreamLog``.

    As durable as the server: with ``appendonly yes`` and ``appendfsync always`` an appended line
    survives the server's death. With ``everysec`` a busy disk may put off writing for two seconds,
    and lines of that time may be lost. Acknowledged entries are removed; the archive keeps what was
    accepted. A FLUSHALL takes what was not read yet along: its publisher publishes it again.

    Source:
        Redis 7.0, ``aof.c``, ``flushAppendOnlyFile``: the postponed write.

    Args:
        client: Connected; replies are bytes.
        num_partitions: How many streams; a log is never given another number.

    Raises:
        ValueError: If the server holds a log with another number of partitions.
    """

    def __init__(self, client: redis.Redis, *, num_partitions: int) -> None:
        self.num_partitions = num_partitions
        self._client = client
        self._pipe = RedisPipe(client)
        self._cursors: dict[int, str] = {}
        if not client.exists(_PARTITIONS):
            client.set(_PARTITIONS, num_partitions, nx=True)
        found = int(client.get(_PARTITIONS) or 0)
        if found != num_partitions:
            raise ValueError(
                f"the log in Redis has {found} partitions; set stream.num_partitions={found}, or"
                f" delete {_PARTITIONS} there once everything in the log was processed"
            )

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        """Append lines to streams, all or none of them; a line holds no line break."""
        commands = [
            pack([b"XADD", _stream(partition).encode(), b"*", _LINES, b"\n".join(lines_of_entry)])
            for partition, new in lines.items()
            for lines_of_entry in _split(new)
        ]
        with self._pipe.open() as call:
            call_together(call, commands)

    def read(self, partition: int, *, max_entries: int) -> list[Entry]:
        """Return what was read before and not acknowledged, then what is new."""
        entries: list[Entry] = []
        while len(entries) < max_entries:
            wanted = max(1, (max_entries - len(entries)) // LINES_PER_ENTRY)
            cursor = self._cursors.get(partition, "0")
            found = self._read_group(partition, cursor, wanted)
            if cursor != ">":
                self._cursors[partition] = found[-1][0].decode() if found else ">"
            elif not found:
                break
            for position, fields in found:
                lines = fields.get(_LINES, b"").split(b"\n")
                name = position.decode()
                entries += [
                    Entry(f"{name}/{number:03d}", line) for number, line in enumerate(lines)
                ]
        return entries

    def acknowledge(self, partition: int, entries: Sequence[Entry]) -> None:
        """Acknowledge entries and remove them from the stream."""
        if entries:
            positions = list(dict.fromkeys(entry.position.split("/")[0] for entry in entries))
            pipe = self._client.pipeline(transaction=True)
            pipe.xack(_stream(partition), GROUP, *positions)
            pipe.xdel(_stream(partition), *positions)
            pipe.execute()

    def rewind(self, partition: int) -> None:
        """Read again from the first entry that was not acknowledged."""
        self._cursors.pop(partition, None)

    def count_waiting(self, partition: int) -> int:
        """Count the stream's entries that are not acknowledged yet."""
        return int(self._client.xlen(_stream(partition)))

    def read_cpu_seconds(self) -> float:
        """Read the processor seconds that the server has taken since it started."""
        used: Any = self._client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def _read_group(
        self, partition: int, cursor: str, max_entries: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Read the stream's entries after the cursor; ``>`` means those nobody has read."""
        stream = _stream(partition)
        try:
            reply: Any = self._client.xreadgroup(
                GROUP, CONSUMER, {stream: cursor}, count=max_entries
            )
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._make_group(stream)
            return []
        # An entry removed before it was acknowledged comes without fields.
        return [(key, fields or {}) for key, fields in reply[0][1]] if reply else []

    def _make_group(self, stream: str) -> None:
        try:
            self._client.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _split(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split lines into those of one entry each."""
    for start in range(0, len(lines), LINES_PER_ENTRY):
        yield lines[start : start + LINES_PER_ENTRY]


def _stream(partition: int) -> str:
    return f"{PROJECT}:log:{partition}"
