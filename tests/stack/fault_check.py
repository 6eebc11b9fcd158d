"""Judges answers during a fault; apart from what starts servers, since load processes import it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import msgspec

from serving.load_messages import MAX_DIFFERENCE, Expected, FraudCheck

SLOTS_PER_SECOND = 10


def get_slot() -> int:
    """Number the tenths of seconds by a clock that all processes share."""
    return int(time.monotonic() * SLOTS_PER_SECOND)


class FaultCheck(FraudCheck):
    """A ``FraudCheck`` that notes when answers were whole, and when degraded.

    Args:
        id_prefix: What the transactions' ids begin with.
        expected: What each message is answered when nothing is wrong.
        stale: The reason of an answer from the last known history. Nothing happens to the
            customers while a test runs, so such an answer must be the expected one too.

    Attributes:
        tallies: Also ``whole`` and ``degraded``: answers by slot (``get_slot``); and ``answered``:
            serial numbers.
    """

    def __init__(self, *, id_prefix: str, expected: Sequence[Expected], stale: str) -> None:
        super().__init__(id_prefix=id_prefix, expected=expected)
        self.tallies |= {"whole": Counter(), "degraded": Counter(), "answered": Counter()}
        self._stale = stale

    def __reduce__(self) -> tuple[object, ...]:
        arguments = {"expected": self._expected, "stale": self._stale}
        return partial(FaultCheck, id_prefix=self._id_prefix, **arguments), ()

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:
        problem = super().__call__(body, row=row, serial=serial)
        if problem is not None:
            return problem
        self.tallies["answered"][serial.decode()] += 1
        answer = msgspec.json.decode(body)
        is_whole = answer["degraded_reason"] is None
        self.tallies["whole" if is_whole else "degraded"][str(get_slot())] += 1
        difference = abs(answer["score"] - self._expected[row].score)
        if answer["degraded_reason"] == self._stale and difference > MAX_DIFFERENCE:
            return "other than the last known history says"
        return None
