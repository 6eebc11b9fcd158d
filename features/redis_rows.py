"""The entities of a batch of requests become their states, in one round trip to Redis.

Customers and addresses are read each time: there are many, and they seldom come again soon.
Merchants and categories are read once, and again when Redis says that they changed; what it says
comes with the replies, so a batch may know of them what was true one round trip ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from features.feast_layout import (
    decode_redis_key,
    decode_value,
    encode_redis_field,
    encode_redis_key,
)
from features.fraud_state import STATE_KEYS
from features.redis_link import RedisLink, open_link, pack
from features.redis_states import MARK
from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import (
    CATEGORY_STATES,
    MERCHANT_STATES,
    SharedSummaries,
    SummariesLostError,
)
from features.state_store import StoreEmptyError

_IS_WHOLE = pack([b"EXISTS", MARK])
_TELL_CHANGES = pack([b"CLIENT", b"CACHING", b"YES"])
_FIELDS = {name: encode_redis_field(f"{name}_state", name) for name in STATE_KEYS}


class RedisRows:
    """Read states of batches; see ``features.row_states.RowReader``.

    The link is opened by the first batch, and anew by the first batch after it was lost.

    Args:
        url: As for ``features.redis_link.open_link``.
        refresh_seconds: As for ``features.shared_summaries.SharedSummaries``.
    """

    def __init__(self, url: str, *, refresh_seconds: float = 0.0) -> None:
        self._url = url
        self._link: RedisLink | None = None
        self._opening = asyncio.Lock()
        self._num_reading = 0
        self._changes: list[Sequence[bytes] | None] = []
        self.summaries = SharedSummaries(refresh_seconds=refresh_seconds)

    async def read(self, requests: RowRequests) -> RowStates:
        """Read the states of a batch's entities; see ``features.row_states.RowReader``."""
        try:
            return await self._read(requests)
        except SummariesLostError:
            return await self._read(requests)

    async def _read(self, requests: RowRequests) -> RowStates:
        link = self._link
        if link is None or not link.is_open:
            link = await self._open()
        self._num_reading += 1
        try:
            return await self._ask(link, requests)
        finally:
            self._num_reading -= 1
            if not self._num_reading:
                self._changes.clear()

    async def _ask(self, link: RedisLink, requests: RowRequests) -> RowStates:
        merchants, categories = self.summaries.list_missing(requests.merchants, requests.categories)
        commands = [_IS_WHOLE]
        commands += map(_get_customer, requests.customers)
        ips = list(dict.fromkeys(filter(None, requests.ips)))  # a busy one is in many requests
        commands += map(_get_ip, ips)
        num_replies = len(commands) + 2 * (len(merchants) + len(categories))
        for merchant in merchants:
            commands += (_TELL_CHANGES, _get(merchant, MERCHANT_STATES))
        for category in categories:
            commands += (_TELL_CHANGES, _get(category, CATEGORY_STATES))
        decode = partial(self._decode, requests, ips, merchants, categories, len(self._changes))
        num_received = link.num_received
        future = link.call(b"".join(commands), num_replies=num_replies, decode=decode)
        try:
            return await future
        except asyncio.CancelledError:
            if link.num_received == num_received:  # not slow but silent: a new link may do better
                link.close()
            raise

    def close(self) -> None:
        """Close the link."""
        if self._link is not None:
            self._link.close()

    async def _open(self) -> RedisLink:
        async with self._opening:
            if self._link is None or not self._link.is_open:
                link = await open_link(self._url, on_change=self._note_changed)
                self.summaries.mark_all_outdated()  # nobody said what changed meanwhile
                self._link = link
            return self._link

    def _note_changed(self, keys: Sequence[bytes] | None) -> None:
        """Take what Redis says that changed; ``None`` for everything."""
        self._mark_changed(keys)
        if self._num_reading:
            self._changes.append(keys)

    def _mark_changed(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self.summaries.mark_all_outdated()
            return
        for key in keys:
            join_key, entity = decode_redis_key(key)
            if join_key == "merchant_id":
                self.summaries.mark_merchant_outdated(entity)
            else:
                self.summaries.mark_category_outdated(entity)

    def _decode(
        self,
        requests: RowRequests,
        asked_ips: Sequence[str],
        merchants: Sequence[str],
        categories: Sequence[str],
        num_changes: int,
        replies: list[Any],
    ) -> RowStates:
        """Make states of replies.

        A merchant may have changed after its reply and before the last one of the batch; Redis
        says so once. So what changed since the batch was sent is marked again after it is kept.
        """
        if not replies[0]:
            raise StoreEmptyError
        border = 1 + len(requests.customers)
        customers = [value or b"" for value in replies[1:border]]
        rest = iter(replies[border:])
        states = dict(zip(asked_ips, rest, strict=False))
        ips = [states[ip] or b"" if ip else b"" for ip in requests.ips]
        if merchants:
            columns = zip(*_pairs(rest, len(merchants)), strict=True)
            self.summaries.put_merchants(merchants, *(list(map(_unwrap, c)) for c in columns))
        for category, states in zip(categories, _pairs(rest, len(categories)), strict=True):
            self.summaries.put_category(category, _unwrap(states[0]))
        for keys in self._changes[num_changes:]:
            self._mark_changed(keys)
        located = self.summaries.locate(requests.merchants, requests.categories)
        return RowStates(customers, ips, located)


def _pairs(replies: Iterator[Any], num: int) -> list[Any]:
    """Skip the acknowledgement before each of the next ``num`` answers."""
    return list(islice(replies, 2 * num))[1::2]


@lru_cache(maxsize=1 << 16)
def _get_customer(customer: str) -> bytes:
    return _get_one(customer, "customer_events")


@lru_cache(maxsize=1 << 16)
def _get_ip(ip: str) -> bytes:
    return _get_one(ip, "ip_events")


def _get_one(entity: str, state: str) -> bytes:
    """Pack the command that reads one state of an entity."""
    return pack([b"HGET", encode_redis_key(STATE_KEYS[state], entity), _FIELDS[state]])


def _get(entity: str, states: Sequence[str]) -> bytes:
    """Pack the command that reads several states of an entity."""
    key = encode_redis_key(STATE_KEYS[states[0]], entity)
    return pack([b"HMGET", key, *(_FIELDS[state] for state in states)])


def _unwrap(value: bytes | None) -> bytes | None:
    """Take out the state; a value that wraps none is given as it is, and is no state either."""
    try:
        return None if value is None else decode_value(value)
    except ValueError:
        return value
