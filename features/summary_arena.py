"""Summaries of entities that many requests share, kept in one array of words.

Compiled code reads a summary by where it begins, so summaries stand in one growing array. A
replaced summary leaves a gap; when gaps are half of the array, it is written anew.
Words that were handed out are never written over: who took ``words`` may read on while summaries
are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.windows import Integers

UNREADABLE_PLACE = -2
"""Where an entity's summary is if the store's bytes are no state."""


class SummaryArena:
    """Words by entity.

    Attributes:
        words: The array; another one after some ``put_many``.
        places: Where each entity's summary begins in it, and how many words it has.
    """

    def __init__(self, *, capacity: int = 1 << 16) -> None:
        self.words: Integers = np.zeros(capacity, np.int64)
        self.places: dict[str, tuple[int, int]] = {}
        self._used = 0
        self._live = 0

    def put_many(self, entities: Sequence[str], summaries: Integers, ends: Integers) -> None:
        """Keep summaries, in the place of earlier ones of the same entities.

        Args:
            entities: Each once.
            summaries: Theirs, one after the other.
            ends: Where each one's ends; an empty one is found at ``UNREADABLE_PLACE``.

        >>> arena = SummaryArena()
        >>> arena.put_many(["m1", "m2"], np.array([7, 8, 9]), np.array([1, 3]))
        >>> begin, size = arena.places["m2"]
        >>> arena.words[begin : begin + size]
        array([8, 9])
        """
        for entity in entities:
            self.remove(entity)
        if self._used + summaries.size > self.words.size:
            self._rewrite(self._live + summaries.size)
        self.words[self._used : self._used + summaries.size] = summaries
        start = self._used
        for entity, end in zip(entities, (ends + start).tolist(), strict=True):
            has_words = end > start
            self.places[entity] = (start if has_words else UNREADABLE_PLACE, end - start)
            start = end
        self._used = start
        self._live += summaries.size

    def remove(self, entity: str) -> None:
        """Forget a summary, if there is one."""
        place = self.places.pop(entity, None)
        if place is not None:
            self._live -= place[1]

    def clear(self) -> None:
        """Forget every summary."""
        self.places.clear()
        self._live = 0
        self._rewrite(0)

    def _rewrite(self, needed: int) -> None:
        """Copy what is live to an array at least twice as large as needed."""
        words = np.zeros(max(2 * needed, 1 << 16), np.int64)
        used = 0
        for entity, (begin, size) in self.places.items():
            if begin < 0:
                continue
            words[used : used + size] = self.words[begin : begin + size]
            self.places[entity] = (used, size)
            used += size
        self.words, self._used = words, used
