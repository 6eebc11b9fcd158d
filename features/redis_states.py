"""States in Redis: one hash per entity, as Feast writes and reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import redis

from features.feast_layout import (
    PROJECT,
    decode_value,
    encode_redis_field,
    encode_redis_key,
    encode_redis_time_field,
    encode_timestamp,
    encode_value_head,
)
from features.fraud_state import STATE_KEYS
from features.redis_link import pack
from features.redis_pipe import RedisPipe, call_together
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
_PACKED_TIME_FIELDS = {
    name: pack([encode_redis_time_field(f"{name}_state")]).removeprefix(b"*1\r\n")
    for name in STATE_KEYS
}
CHUNK_STATES, CHUNK_BYTES = 256, 1 << 20
"""States written by one transaction, at most: Redis answers nobody else meanwhile."""
_IS_WHOLE = pack([b"EXISTS", MARK])
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
        self._pipe = RedisPipe(client)
        self._renew = client.register_script(_SCRIPTS["renew"])
        self._release = client.register_script(_SCRIPTS["release"])
        self._list = client.register_script(_SCRIPTS["list"])

    def read(
        self, entities: Mapping[str, Sequence[str]], states: Sequence[str]
    ) -> dict[str, list[bytes | None]]:
        """Read states of entities: one command per entity, however many its states are."""
        by_key = {key: [s for s in states if STATE_KEYS[s] == key] for key in entities}
        commands = [_IS_WHOLE]
        for key, wanted in by_key.items():
            if wanted:
                names = tuple(wanted)
                commands += [_pack_read(key, entity, names) for entity in entities[key]]
        with self._pipe.open() as call:
            is_whole, *replies = call(commands)
        if not is_whole:
            raise StoreEmptyError
        found: dict[str, list[bytes | None]] = {}
        rest = iter(replies)
        for key, wanted in by_key.items():
            rows = list(islice(rest, len(entities[key]) if wanted else 0))
            for position, state in enumerate(wanted):
                values = rows if len(wanted) == 1 else [row[position] for row in rows]
                found[state] = [None if value is None else decode_value(value) for value in values]
        return found

    def write(self, updates: Sequence[Update], *, lease: Lease | None) -> None:
        """Write states, each chunk in a transaction that fails once the lease or mark changes.

        A script that checks and writes would be one round trip less, and copies each state into
        Lua's memory and out again: more than half of Redis's time for a transaction on the stream.
        """
        with self._pipe.open() as call:
            if lease is None:
                for chunk in _split(updates):
                    call([_pack_write(update) for update in chunk])
                return
            watched = (_lease_key(lease.partition), MARK)
            look = [
                pack([b"UNWATCH"]),
                pack([b"WATCH", *watched]),
                pack([b"GET", watched[0]]),
                _IS_WHOLE,
            ]
            _, _, token, is_whole = call(look)
            for chunk in _split(updates):
                if not is_whole:
                    raise StoreEmptyError
                if token != lease.token.encode():
                    raise LeaseLostError("the partition has another owner")
                written, *_, token, is_whole = call_together(
                    call, list(map(_pack_write, chunk)), look
                )
                if written is None:
                    raise LeaseLostError("the partition has another owner, or the store changed")

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


@lru_cache(maxsize=1 << 17)
def _pack_read(key: str, entity: str, states: tuple[str, ...]) -> bytes:
    fields = [_VALUE_FIELDS[state] for state in states]
    command = b"HGET" if len(fields) == 1 else b"HMGET"  # one value comes without a list around it
    return pack([command, encode_redis_key(key, entity), *fields])


def _pack_write(update: Update) -> bytes:
    """Pack the command that writes a state and its time: by hand, to copy the state only once."""
    head = encode_value_head(len(update.value))
    time_ = encode_timestamp(update.event_time)
    return b"".join(
        (
            _pack_target(update.state, update.entity),
            b"$%d\r\n" % (len(head) + len(update.value)),
            head,
            update.value,
            b"\r\n",
            _PACKED_TIME_FIELDS[update.state],
            b"$%d\r\n%b\r\n" % (len(time_), time_),
        )
    )


@lru_cache(maxsize=1 << 17)
def _pack_target(state: str, entity: str) -> bytes:
    """Pack the first three of the six parts of a command that writes a state."""
    key = encode_redis_key(STATE_KEYS[state], entity)
    return b"*6" + pack([b"HSET", key, _VALUE_FIELDS[state]]).removeprefix(b"*3")


def _lease_key(partition: int | str) -> bytes:
    return f"{PROJECT}:lease:{partition}".encode()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
