"""States in Redis: one hash per entity, as Feast writes and reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import hiredis
import redis

from features.feast_layout import (
    PROJECT,
    decode_value,
    encode_redis_field,
    encode_redis_key,
    encode_redis_time_field,
    encode_timestamp,
    encode_value,
)
from features.fraud_state import STATE_KEYS
from features.state_store import (
    Lease,
    LeaseLostError,
    StoreEmptyError,
    Update,
    new_token,
)

MARK = f"{PROJECT}:whole".encode()
_PROCESSORS = f"{PROJECT}:processors"
_VALUE_FIELDS = {name: encode_redis_field(f"{name}_state", name) for name in STATE_KEYS}
_TIME_FIELDS = {name: encode_redis_time_field(f"{name}_state") for name in STATE_KEYS}
CHUNK_STATES, CHUNK_BYTES = 256, 1 << 20
"""States written by one script, at most: Redis answers nobody else meanwhile."""
_WRITE = b"""
if ARGV[1] ~= '' then
  if redis.call('EXISTS', KEYS[2]) == 0 then return 'EMPTY' end
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'LOST' end
end
for i = 3, #KEYS do
  local j = (i - 3) * 4 + 2
  redis.call('HSET', KEYS[i], ARGV[j], ARGV[j + 1], ARGV[j + 2], ARGV[j + 3])
end
return 'OK'
"""
_SCRIPTS = {
    "renew": "if redis.call('get', KEYS[1]) == ARGV[1] then"
    " return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0",
    "release": "if redis.call('get', KEYS[1]) == ARGV[1] then"
    " return redis.call('del', KEYS[1]) end return 0",
    # By the server's clock: processors on machines whose clocks differ count alike.
    "list": "local time = redis.call('time') local now = time[1] * 1000 + time[2] / 1000"
    " redis.call('zadd', KEYS[1], now, ARGV[1])"
    " redis.call('zremrangebyscore', KEYS[1], '-inf', now - ARGV[2])"
    " return redis.call('zrange', KEYS[1], 0, -1)",
}


class RedisStates:
    """The states that Feast's Redis online store holds; see ``features.state_store.StateStore``.

    Args:
        client: Connected to the database Feast uses; replies are bytes.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._renew = client.register_script(_SCRIPTS["renew"])
        self._release = client.register_script(_SCRIPTS["release"])
        self._list = client.register_script(_SCRIPTS["list"])

    def read(
        self, entities: Mapping[str, Sequence[str]], states: Sequence[str]
    ) -> dict[str, list[bytes | None]]:
        """Read states of entities: one pipelined HMGET per entity, however many its states are."""
        by_key = {key: [s for s in states if STATE_KEYS[s] == key] for key in entities}
        commands: list[tuple[bytes, ...]] = [(b"EXISTS", MARK)]
        for key, wanted in by_key.items():
            fields = [_VALUE_FIELDS[state] for state in wanted]
            if fields:
                commands += [
                    (b"HMGET", encode_redis_key(key, entity), *fields) for entity in entities[key]
                ]
        is_whole, *replies = call_many(self._client, commands)
        if not is_whole:
            raise StoreEmptyError
        found: dict[str, list[bytes | None]] = {}
        rest = iter(replies)
        for key, wanted in by_key.items():
            rows = list(islice(rest, len(entities[key]) if wanted else 0))
            for position, state in enumerate(wanted):
                found[state] = [
                    None if row[position] is None else decode_value(row[position]) for row in rows
                ]
        return found

    def write(self, updates: Sequence[Update], *, lease: Lease | None) -> None:
        """Write states by a script that checks the lease and the mark first, chunk by chunk."""
        lease_key = _lease_key(lease.partition) if lease else b""
        token = lease.token.encode() if lease else b""
        for chunk in _split(updates):
            keys = [encode_redis_key(STATE_KEYS[u.state], u.entity) for u in chunk]
            values = [part for update in chunk for part in _list_fields(update)]
            num_keys = str(len(keys) + 2).encode()
            command = (b"EVAL", _WRITE, num_keys, lease_key, MARK, *keys, token, *values)
            (reply,) = call_many(self._client, [command])
            if reply == b"EMPTY":
                raise StoreEmptyError
            if reply == b"LOST":
                raise LeaseLostError("the partition has another owner")

    def acquire(self, partition: int, *, seconds: float) -> Lease | None:
        """Take a partition's lease if nobody holds it."""
        lease = Lease(partition, new_token())
        taken = self._client.set(_lease_key(partition), lease.token, nx=True, px=_ms(seconds))
        return lease if taken else None

    def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Prolong a lease; false if it is not held any more."""
        return bool(self._renew([_lease_key(lease.partition)], [lease.token, _ms(seconds)]))

    def release(self, lease: Lease) -> None:
        """Give a lease back, if it is still held."""
        self._release([_lease_key(lease.partition)], [lease.token])

    def list_processors(self, processor: str, *, seconds: float) -> list[str]:
        """Say that a processor lives; list those that said so lately, sorted."""
        names: Any = self._list([_PROCESSORS], [processor, _ms(seconds)])
        return sorted(name.decode() for name in names)

    def forget_processor(self, processor: str) -> None:
        """Say that a processor has ended."""
        self._client.zrem(_PROCESSORS, processor)

    def clear(self) -> None:
        """Take the mark and the leases away, then remove every entity's hash."""
        self._client.delete(MARK)
        # Who merged into states read before the mark went has lost the right to write them.
        for lease in self._client.scan_iter(match=_lease_key("*"), count=10_000):
            self._client.delete(lease)
        keys = self._client.scan_iter(match=f"*{PROJECT}", count=10_000)
        while batch := list(islice(keys, 10_000)):
            self._client.unlink(*batch)

    def mark_whole(self) -> None:
        """Say that the store holds every entity's state."""
        self._client.set(MARK, str(int(time.time())))

    def is_whole(self) -> bool:
        """Whether the store holds every entity's state."""
        return bool(self._client.exists(MARK))


def _split(updates: Sequence[Update]) -> Iterator[list[Update]]:
    """Split updates into chunks; without updates one empty chunk, so that the lease is checked."""
    chunk: list[Update] = []
    size = 0
    for update in updates:
        if chunk and (len(chunk) == CHUNK_STATES or size + len(update.value) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(update)
        size += len(update.value)
    yield chunk


def call_many(client: redis.Redis, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
    """Send commands in one go and read their replies, in order.

    A pipeline of redis-py costs some 15 us a command, most of it in packing.

    Raises:
        redis.RedisError: What went wrong with the connection, or with the first command refused.
    """
    connection = client.connection_pool.get_connection()
    try:
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        connection.send_packed_command([b"".join(packed)])  # type: ignore[no-untyped-call]
        return [connection.read_response(disable_decoding=True) for _ in commands]
    except BaseException:
        # Replies still under way must not meet the next caller.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        client.connection_pool.release(connection)


def _list_fields(update: Update) -> tuple[bytes, bytes, bytes, bytes]:
    return (
        _VALUE_FIELDS[update.state],
        encode_value(update.value),
        _TIME_FIELDS[update.state],
        encode_timestamp(update.event_time),
    )


def _lease_key(partition: int | str) -> bytes:
    return f"{PROJECT}:lease:{partition}".encode()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
