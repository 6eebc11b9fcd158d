"""Merchants' and categories' summaries, kept in the process as long as the store's did not change.

Few of them are in every request; reading a shop's month for each payment would be most of the work.
A summary known to be outdated can still be read: requests under way were promised it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from features.row_requests import RowRequests
from features.state_summaries import summarise_labels, summarise_merchants
from features.summary_arena import SummaryArena
from features.windows import Integers

MAX_ENTITIES = 200_000
"""More are not kept: the memory of those seldom asked for is worth more than reading them again."""
MERCHANT_STATES = ("merchant_events", "merchant_labels")
CATEGORY_STATES = ("category_labels",)


class SummariesLostError(RuntimeError):
    """Summaries were thrown away between asking for a batch and answering it: ask again."""


class Located(NamedTuple):
    """The summaries of a batch, which stay as they are now.

    Attributes:
        places: Where each row's merchant and category begin, -1 if it names none and
            ``UNREADABLE_PLACE`` if the store's bytes are no state. Shape ``(rows, 2)``.
        merchants: Words.
        categories: Words.
    """

    places: Integers
    merchants: Integers
    categories: Integers


class SharedSummaries:
    """Summaries by entity.

    Args:
        refresh_seconds: How long a merchant that changed may go unread. A busy one changes with
            every micro-batch of the stream, and its month is the largest state there is.
        clock: Seconds that never go back.
    """

    def __init__(
        self, *, refresh_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._refreshed_at = float("-inf")
        self._changed_merchants: set[str] = set()
        self._merchants = SummaryArena()
        self._categories = SummaryArena()
        self._outdated_merchants: set[str] = set()
        self._outdated_categories: set[str] = set()

    def list_missing(
        self, merchants: Iterable[str | None], categories: Iterable[str | None]
    ) -> tuple[list[str], list[str]]:
        """Name the merchants and categories that must be read, each once."""
        if (
            len(self._merchants.places) > MAX_ENTITIES
            or len(self._categories.places) > MAX_ENTITIES
        ):
            self.clear()
        if self._changed_merchants:
            self._refresh()
        return (
            _select(merchants, self._merchants, self._outdated_merchants),
            _select(categories, self._categories, self._outdated_categories),
        )

    def _refresh(self) -> None:
        """Have merchants that changed read again, all at once, every ``refresh_seconds``."""
        now = self._clock()
        if now - self._refreshed_at >= self._refresh_seconds:
            self._refreshed_at = now
            self._outdated_merchants |= self._changed_merchants
            self._changed_merchants.clear()

    def put_merchants(
        self,
        merchants: Sequence[str],
        events: Sequence[bytes | None],
        labels: Sequence[bytes | None],
    ) -> None:
        """Keep merchants' states, of which bytes that are no state cost their own rows alone.

        Args:
            merchants: Each once. Found from now on, at ``UNREADABLE_PLACE`` if its bytes are no
                state.
            events: One per merchant; ``None`` says that the store has none.
            labels: As ``events``.
        """
        self._merchants.put_many(merchants, *summarise_merchants(events, labels))
        self._outdated_merchants.difference_update(merchants)

    def put_category(self, category: str, labels: bytes | None) -> None:
        """Keep a category's state; see ``put_merchants``."""
        try:
            summary = summarise_labels(labels)
        except ValueError:
            summary = np.empty(0, np.int64)
        self._categories.put_many([category], summary, np.array([summary.size]))
        self._outdated_categories.discard(category)

    def mark_all_outdated(self) -> None:
        """Read everything again before it is next asked for; it can be read meanwhile."""
        self._outdated_merchants.update(self._merchants.places)
        self._outdated_categories.update(self._categories.places)

    def mark_merchant_outdated(self, merchant: str) -> None:
        """Read a merchant again before a request that names it, ``refresh_seconds`` from now."""
        self._changed_merchants.add(merchant)

    def mark_category_outdated(self, category: str) -> None:
        """Read a category again before the next request that names it."""
        self._outdated_categories.add(category)

    def clear(self) -> None:
        """Forget everything."""
        for arena in (self._merchants, self._categories):
            arena.clear()
        self._outdated_merchants.clear()
        self._changed_merchants.clear()
        self._outdated_categories.clear()

    def has(self, requests: RowRequests, row: int) -> bool:
        """Whether a row's merchant and category are at hand, outdated or not."""
        merchant, category = requests.merchants[row], requests.categories[row]
        return (not merchant or merchant in self._merchants.places) and (
            not category or category in self._categories.places
        )

    def locate(self, merchants: Sequence[str | None], categories: Sequence[str | None]) -> Located:
        """Find the summaries of a batch, a row per merchant and category; empty ones name none.

        Raises:
            SummariesLostError: If an entity has no summary any more.
        """
        places = np.empty((len(merchants), 2), np.int64)
        places[:, 0] = _locate(merchants, self._merchants)
        places[:, 1] = _locate(categories, self._categories)
        return Located(places, self._merchants.words, self._categories.words)


def _select(entities: Iterable[str | None], arena: SummaryArena, outdated: set[str]) -> list[str]:
    places = arena.places
    return [
        entity
        for entity in set(entities)
        if entity and (entity not in places or entity in outdated)
    ]


def _locate(entities: Sequence[str | None], arena: SummaryArena) -> list[int]:
    places = arena.places
    try:
        return [places[entity][0] if entity else -1 for entity in entities]
    except KeyError:
        raise SummariesLostError from None
