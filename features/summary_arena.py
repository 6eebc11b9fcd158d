"""Summaries of entities that many requests share, kept in one array of words.

Compiled code reads a summary by where it begins, so summaries stand in one growing array. A
replaced summary leaves a gap; when gaps are half of the array, it is written anew.
Words that were handed out are never written over: who took ``words`` may read on while summaries
are replaced.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from features.windows import Integers


class SummaryArena:
    """Words by key. Attribute ``words`` is the array; it changes when a summary is put."""

    def __init__(self, *, capacity: int = 1 << 16) -> None:
        self.words: Integers = np.zeros(capacity, np.int64)
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._used = 0
        self._live = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._places

    def find(self, key: Hashable) -> int:
        """Return where a summary begins, -1 if there is none."""
        place = self._places.get(key)
        return -1 if place is None else place[0]

    def put(self, key: Hashable, summary: Integers) -> None:
        """Keep a summary, in the place of an earlier one of the same key.

        >>> arena = SummaryArena()
        >>> arena.put("m1", np.array([7, 8]))
        >>> arena.words[arena.find("m1")], arena.find("m2")
        (np.int64(7), -1)
        """
        self.remove(key)
        if self._used + summary.size > self.words.size:
            self._rewrite(self._live + summary.size)
        self.words[self._used : self._used + summary.size] = summary
        self._places[key] = (self._used, summary.size)
        self._used += summary.size
        self._live += summary.size

    def remove(self, key: Hashable) -> None:
        """Forget a summary, if there is one."""
        place = self._places.pop(key, None)
        if place is not None:
            self._live -= place[1]

    def clear(self) -> None:
        """Forget every summary."""
        self._places.clear()
        self._live = 0
        self._rewrite(0)

    def _rewrite(self, needed: int) -> None:
        """Copy what is live to an array at least twice as large as needed."""
        words = np.zeros(max(2 * needed, 1 << 16), np.int64)
        used = 0
        for key, (begin, size) in self._places.items():
            words[used : used + size] = self.words[begin : begin + size]
            self._places[key] = (used, size)
            used += size
        self.words, self._used = words, used
