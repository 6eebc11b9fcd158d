"""The log in Redis: one stream per partition, read by one consumer group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from features.feast_layout import PROJECT
from features.stream_log import Entry

GROUP = "processors"
CONSUMER = "owner"
"""The group's one consumer: whoever reads a partition holds its lease, whichever process it is."""
_LINE = b"line"


class RedisLog:
    """A log in Redis Streams; see ``features.stream_log.StreamLog``.

    As durable as the server: with ``appendonly yes`` an appended line survives the server's death.
    Acknowledged entries are removed; the archive keeps what was accepted.

    Args:
        client: Connected; replies are bytes.
        num_partitions: How many streams.
    """

    def __init__(self, client: redis.Redis, *, num_partitions: int) -> None:
        self.num_partitions = num_partitions
        self._client = client
        self._cursors: dict[int, str] = {}

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        """Append lines to streams, all or none of them."""
        pipe = self._client.pipeline(transaction=True)
        for partition, new in lines.items():
            for line in new:
                pipe.xadd(_stream(partition), {_LINE: line})
        pipe.execute()

    def read(self, partition: int, *, max_entries: int) -> list[Entry]:
        """Return what was read before and not acknowledged, then what is new."""
        cursor = self._cursors.get(partition, "0")
        found = self._read_group(partition, cursor, max_entries)
        if cursor != ">":
            self._cursors[partition] = found[-1].position if found else ">"
            return found or self.read(partition, max_entries=max_entries)
        return found

    def acknowledge(self, partition: int, entries: Sequence[Entry]) -> None:
        """Acknowledge entries and remove them from the stream."""
        if entries:
            positions = [entry.position for entry in entries]
            pipe = self._client.pipeline(transaction=True)
            pipe.xack(_stream(partition), GROUP, *positions)
            pipe.xdel(_stream(partition), *positions)
            pipe.execute()

    def rewind(self, partition: int) -> None:
        """Read again from the first entry that was not acknowledged."""
        self._cursors.pop(partition, None)

    def count_waiting(self, partition: int) -> int:
        """Count the entries that are not acknowledged yet."""
        return int(self._client.xlen(_stream(partition)))

    def _read_group(self, partition: int, cursor: str, max_entries: int) -> list[Entry]:
        """Read entries after the cursor; ``>`` means those nobody has read."""
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
        entries = next(iter(reply.values()))[0] if isinstance(reply, dict) and reply else None
        if entries is None:
            entries = reply[0][1] if reply else []
        return [Entry(key.decode(), fields.get(_LINE, b"")) for key, fields in entries if fields]

    def _make_group(self, stream: str) -> None:
        try:
            self._client.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _stream(partition: int) -> str:
    return f"{PROJECT}:log:{partition}"
