"""Summaries of entities that many requests share, kept in one array of words.

Compiled code reads a summary by where it begins, so summaries stand in one growing array. A
replaced summary leaves a gap; when gaps are half of the array, it is written anew.
Words that were handed out are never written over: who took ``words`` may read on while summaries
are replaced.
"""

from __future__ import annotations

import numpy as np

from features.windows import Integers


class SummaryArena:
    """Words by entity.

    Attributes:
        words: The array; another one after some ``put``.
        places: Where each entity's summary begins in it, and how many words it has.
    """

    def __init__(self, *, capacity: int = 1 << 16) -> None:
        self.words: Integers = np.zeros(capacity, np.int64)
        self.places: dict[str, tuple[int, int]] = {}
        self._used = 0
        self._live = 0

    def put(self, entity: str, summary: Integers) -> None:
        """Keep a summary, in the place of an earlier one of the same entity.

        >>> arena = SummaryArena()
        >>> arena.put("m1", np.array([7, 8]))
        >>> begin, size = arena.places["m1"]
        >>> arena.words[begin : begin + size]
        array([7, 8])
        """
        self.remove(entity)
        if self._used + summary.size > self.words.size:
            self._rewrite(self._live + summary.size)
        self.words[self._used : self._used + summary.size] = summary
        self.places[entity] = (self._used, summary.size)
        self._used += summary.size
        self._live += summary.size

    def put_place(self, entity: str, place: int) -> None:
        """Keep a place below 0 instead of a summary, to say why there is none."""
        assert place < 0
        self.remove(entity)
        self.places[entity] = (place, 0)

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
