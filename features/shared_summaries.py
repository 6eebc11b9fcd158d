"""Merchants' and categories' summaries, kept in the process as long as the store's did not change.

Few of them are in every request; reading a shop's month for each payment would be most of the work.
A summary known to be outdated can still be read: requests under way were promised it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from features.fraud_rows import SUMMARIES
from features.row_requests import RowRequests
from features.state_summaries import summarise_labels, summarise_payments
from features.summary_arena import SummaryArena
from features.windows import Integers

MAX_ENTITIES = 200_000
"""More are not kept: the memory of those seldom asked for is worth more than reading them again."""
MERCHANT_STATES = ("merchant_events", "merchant_labels")
CATEGORY_STATES = ("category_labels",)


class SummariesLostError(RuntimeError):
    """Summaries were thrown away between asking for a batch and answering it: ask again."""


class SharedSummaries:
    """Summaries by state and entity."""

    def __init__(self) -> None:
        self._arena = SummaryArena()
        self._outdated: set[tuple[str, str]] = set()

    def list_missing(
        self, merchants: Iterable[str | None], categories: Iterable[str | None]
    ) -> tuple[list[str], list[str]]:
        """Name the merchants and categories that must be read, each once."""
        if len(self._arena) > MAX_ENTITIES:
            self.clear()
        return (
            self._select(MERCHANT_STATES[0], merchants),
            self._select(CATEGORY_STATES[0], categories),
        )

    def _select(self, state: str, entities: Iterable[str | None]) -> list[str]:
        return [
            entity
            for entity in dict.fromkeys(entities)
            if entity and ((state, entity) not in self._arena or (state, entity) in self._outdated)
        ]

    def put_merchant(self, merchant: str, events: bytes | None, labels: bytes | None) -> None:
        """Keep a merchant's states; ``None`` says that the store has none.

        Raises:
            ValueError: If the bytes are no state.
        """
        self._put(("merchant_events", merchant), summarise_payments(events))
        self._put(("merchant_labels", merchant), summarise_labels(labels))

    def put_category(self, category: str, labels: bytes | None) -> None:
        """Keep a category's state; see ``put_merchant``."""
        self._put(("category_labels", category), summarise_labels(labels))

    def _put(self, key: tuple[str, str], summary: Integers) -> None:
        self._arena.put(key, summary)
        self._outdated.discard(key)

    def mark_merchant_outdated(self, merchant: str) -> None:
        """Read a merchant again before the next request that names it."""
        self._outdated.add((MERCHANT_STATES[0], merchant))

    def mark_category_outdated(self, category: str) -> None:
        """Read a category again before the next request that names it."""
        self._outdated.add((CATEGORY_STATES[0], category))

    def clear(self) -> None:
        """Forget everything."""
        self._arena.clear()
        self._outdated.clear()

    def has(self, requests: RowRequests, row: int) -> bool:
        """Whether a row's merchant and category are at hand, outdated or not."""
        merchant, category = requests.merchants[row], requests.categories[row]
        return (not merchant or (MERCHANT_STATES[0], merchant) in self._arena) and (
            not category or (CATEGORY_STATES[0], category) in self._arena
        )

    def locate(
        self, merchants: Sequence[str | None], categories: Sequence[str | None]
    ) -> tuple[Integers, Integers]:
        """Find the summaries of a batch.

        Returns:
            Where each row's ``features.fraud_rows.SUMMARIES`` begin, shape ``(rows, 3)``, -1 if
            it names none; and the words, which stay as they are now.

        Raises:
            SummariesLostError: If an entity has no summary any more.
        """
        find = self._arena.find
        places: list[int] = []
        for merchant, category in zip(merchants, categories, strict=True):
            places += (
                find(("merchant_events", merchant)),
                find(("merchant_labels", merchant)),
                find(("category_labels", category)),
            )
            if (merchant and places[-3] < 0) or (category and places[-1] < 0):
                raise SummariesLostError
        return np.array(places, np.int64).reshape(-1, len(SUMMARIES)), self._arena.words
