"""States seen lately answer for a store that does not: a customer's last known history.

The raw states are kept, not features: windows asked for now are computed as of now, so a state a
few seconds old misses a few seconds of events and nothing else. States are kept by generation, a
quarter of the age limit each; the oldest is dropped as a whole, so keeping a state costs no more
than an entry of a dictionary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import SharedSummaries

NUM_GENERATIONS = 4
MAX_STATES = 20_000
"""Customers, or addresses, of one generation; some 100 MB."""


@dataclass
class _Generation:
    """States read since ``started``, by entity."""

    started: float
    customers: dict[str, bytes] = field(default_factory=dict)
    ips: dict[str | None, bytes] = field(default_factory=dict)


class LastKnown:
    """Customers' and addresses' states, and since when they are known.

    Args:
        max_age_seconds: Older states do not answer.
        clock: Seconds that never go back.
    """

    def __init__(self, *, max_age_seconds: float, clock: Callable[[], float]) -> None:
        self.max_age_seconds = max_age_seconds
        self._clock = clock
        self._read_at = float("-inf")
        self._generations: deque[_Generation] = deque(maxlen=NUM_GENERATIONS)

    def keep(self, requests: RowRequests, states: RowStates) -> None:
        """Keep what the store answered just now."""
        now = self._read_at = self._clock()
        newest = self._generations[-1] if self._generations else None
        if (
            newest is None
            or now - newest.started > self.max_age_seconds / NUM_GENERATIONS
            or max(len(newest.customers), len(newest.ips)) > MAX_STATES
        ):
            newest = _Generation(now)
            self._generations.append(newest)
        newest.customers.update(zip(requests.customers, states.customers, strict=True))
        newest.ips.update(zip(requests.ips, states.ips, strict=True))

    def recall(
        self, requests: RowRequests, summaries: SharedSummaries
    ) -> tuple[RowStates, list[float | None]]:
        """Answer in the store's place, as far as possible.

        Args:
            requests: A batch.
            summaries: What the store said of merchants and categories when it last answered.

        Returns:
            The states, and for each row the age in seconds that the oldest it needed may have, or
            ``None`` if some are not known, or too old: the row's states are then empty.
        """
        now = self._clock()
        customers, ips, ages = [], [], []
        for row, customer in enumerate(requests.customers):
            state, started = self._find_customer(customer)
            address, address_started = self._find_ip(requests.ips[row])
            oldest = min(started, address_started, self._date_summaries(requests, row, summaries))
            is_known = now - oldest <= self.max_age_seconds
            customers.append(state if is_known else b"")
            ips.append(address if is_known else b"")
            ages.append(now - oldest if is_known else None)
        located = summaries.locate(
            _blank(requests.merchants, ages), _blank(requests.categories, ages)
        )
        return RowStates(customers, ips, located), ages

    def _find_customer(self, customer: str) -> tuple[bytes, float]:
        """Return a state, and since when it may have been outdated."""
        for generation in reversed(self._generations):
            if customer in generation.customers:
                return generation.customers[customer], generation.started
        return b"", float("-inf")

    def _find_ip(self, ip: str | None) -> tuple[bytes, float]:
        if not ip:
            return b"", float("inf")
        for generation in reversed(self._generations):
            if ip in generation.ips:
                return generation.ips[ip], generation.started
        return b"", float("-inf")

    def _date_summaries(self, requests: RowRequests, row: int, summaries: SharedSummaries) -> float:
        return self._read_at if summaries.has(requests, row) else float("-inf")


def _blank(entities: Sequence[str | None], ages: Sequence[float | None]) -> list[str | None]:
    return [None if age is None else entity for entity, age in zip(entities, ages, strict=True)]
