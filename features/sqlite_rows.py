"""The entities of a batch of requests become their states, read from SQLite by a thread of its own.

The embedded profile's reader: a locked file must not hold up the event loop. SQLite tells nobody
what changed, so merchants are read each time, and summarised again when their bytes are others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from features.feast_layout import encode_value
from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import CATEGORY_STATES, MERCHANT_STATES, SharedSummaries
from features.state_store import StateStore

_STATES = ("customer_events", "ip_events", *MERCHANT_STATES, *CATEGORY_STATES)

MAX_REMEMBERED = 10_000
"""Entities whose bytes are kept, to tell whether they changed."""


class SqliteRows:
    """Read states of batches; see ``features.row_states.RowReader``.

    Args:
        open_states: Opens the store; called by the thread that reads.
    """

    def __init__(self, open_states: Callable[[], StateStore]) -> None:
        self._open_states = open_states
        self._states: StateStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="online-store")
        self._seen: dict[tuple[str, str], object] = {}
        self.summaries = SharedSummaries()

    async def read(self, requests: RowRequests) -> RowStates:
        """Read the states of a batch's entities; see ``features.row_states.RowReader``."""
        loop = asyncio.get_running_loop()
        entities = {
            "customer_id": list(dict.fromkeys(requests.customers)),
            "ip": list(dict.fromkeys(ip for ip in requests.ips if ip)),
            "merchant_id": list(dict.fromkeys(m for m in requests.merchants if m)),
            "merchant_category": list(dict.fromkeys(c for c in requests.categories if c)),
        }
        found = await loop.run_in_executor(self._thread, self._read, entities)
        self._summarise(entities, found)
        customers = dict(zip(entities["customer_id"], found["customer_events"], strict=True))
        ips = dict(zip(entities["ip"], found["ip_events"], strict=True))
        located = self.summaries.locate(requests.merchants, requests.categories)
        return RowStates(
            [_wrap(customers[customer]) for customer in requests.customers],
            [_wrap(ips[ip]) if ip else b"" for ip in requests.ips],
            located,
        )

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def _read(self, entities: dict[str, list[str]]) -> dict[str, list[bytes | None]]:
        if self._states is None:
            self._states = self._open_states()
        return self._states.read(entities, _STATES)

    def _summarise(
        self, entities: dict[str, list[str]], found: dict[str, list[bytes | None]]
    ) -> None:
        """Summarise what is new, or whose bytes are others than those summarised."""
        merchants, categories = entities["merchant_id"], entities["merchant_category"]
        missing = self.summaries.list_missing(merchants, categories)
        states = zip(merchants, *(found[state] for state in MERCHANT_STATES), strict=True)
        changed = [
            (merchant, *pair)
            for merchant, *pair in states
            if self._is_changed(("merchant", merchant), pair) or merchant in missing[0]
        ]
        if changed:
            self.summaries.put_merchants(*zip(*changed, strict=True))
        for category, labels in zip(categories, found[CATEGORY_STATES[0]], strict=True):
            if self._is_changed(("category", category), labels) or category in missing[1]:
                self.summaries.put_category(category, labels)

    def _is_changed(self, key: tuple[str, str], states: object) -> bool:
        if self._seen.get(key) == states:
            return False
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.clear()
        self._seen[key] = states
        return True


def _wrap(state: bytes | None) -> bytes:
    return b"" if state is None else encode_value(state)
