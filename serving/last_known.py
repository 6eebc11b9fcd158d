"""States seen lately answer for a store that does not: a customer's last known history.

The raw states are kept, not features: windows asked for now are computed as of now, so a state a
few seconds old misses a few seconds of events and nothing else. Two generations of bounded size: the
older is dropped as a whole, so keeping a state costs no more than a dictionary's entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import SharedSummaries

MAX_GENERATION_BYTES = 64 << 20


class LastKnown:
    """Customers' and addresses' states, each with the moment it was read.

    Args:
        max_age_seconds: Older states do not answer.
        clock: Seconds that never go back.
    """

    def __init__(self, *, max_age_seconds: float, clock: Callable[[], float]) -> None:
        self.max_age_seconds = max_age_seconds
        self._clock = clock
        self._read_at = float("-inf")
        self._young: dict[tuple[str, str], tuple[bytes | None, float]] = {}
        self._old: dict[tuple[str, str], tuple[bytes | None, float]] = {}
        self._young_bytes = 0

    def keep(self, requests: RowRequests, states: RowStates) -> None:
        """Keep what the store answered just now."""
        now = self._read_at = self._clock()
        young = self._young
        for customer, state in zip(requests.customers, states.customers, strict=True):
            young["customer", customer] = (state, now)
            self._young_bytes += 200 if state is None else 200 + len(state)
        for ip, state in zip(requests.ips, states.ips, strict=True):
            if ip:
                young["ip", ip] = (state, now)
                self._young_bytes += 200 if state is None else 200 + len(state)
        if self._young_bytes > MAX_GENERATION_BYTES:
            self._old, self._young, self._young_bytes = young, {}, 0

    def recall(
        self, requests: RowRequests, summaries: SharedSummaries
    ) -> tuple[RowStates, list[float | None]]:
        """Answer in the store's place, as far as possible.

        Args:
            requests: A batch.
            summaries: What the store said of merchants and categories when it last answered.

        Returns:
            The states, and for each row the age in seconds of the oldest it needed, or ``None`` if
            some are not known, or too old: the row's states are then empty.
        """
        now = self._clock()
        ages = [self._find_age(requests, row, summaries, now) for row in range(len(requests))]
        is_known = [age is not None for age in ages]
        places, words = summaries.locate(
            _blank(requests.merchants, is_known), _blank(requests.categories, is_known)
        )
        states = RowStates(
            customers=[
                self._get("customer", customer)[0] if known else None
                for customer, known in zip(requests.customers, is_known, strict=True)
            ],
            ips=[
                self._get("ip", ip)[0] if known and ip else None
                for ip, known in zip(requests.ips, is_known, strict=True)
            ],
            places=places,
            summaries=words,
        )
        return states, ages

    def _find_age(
        self, requests: RowRequests, row: int, summaries: SharedSummaries, now: float
    ) -> float | None:
        ip = requests.ips[row]
        times = [self._get("customer", requests.customers[row])[1]]
        if ip:
            times.append(self._get("ip", ip)[1])
        if requests.merchants[row] or requests.categories[row]:
            times.append(self._read_at if summaries.has(requests, row) else float("-inf"))
        age = now - min(times)
        return age if age <= self.max_age_seconds else None

    def _get(self, kind: str, entity: str) -> tuple[bytes | None, float]:
        unknown = (None, float("-inf"))
        return self._young.get((kind, entity)) or self._old.get((kind, entity)) or unknown


def _blank(entities: Sequence[str | None], is_known: Sequence[bool]) -> list[str | None]:
    return [entity if known else None for entity, known in zip(entities, is_known, strict=True)]
