"""The outcomes of calls to a dependency decide whether the next one is made.

A dependency that fails is left alone for a while, so that requests are answered at once without
it instead of each waiting for its own timeout. Closed, every call goes through. Enough failures
open the breaker; open, none does. After ``open_seconds`` one call is let through to find out
(half open): its success closes the breaker, its failure opens it for another ``open_seconds``.

Invariants: at most one call is out while the breaker is half open; an outcome counts only in the
state its call was made in, so an answer that comes late neither closes nor opens anything. There
is no lock: one event loop uses it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

NUM_SLOTS = 10
"""A window is counted in this many parts; its oldest tenth is forgotten at once."""


class BreakerState(IntEnum):
    """What happens to the next call, as a number for a gauge: the larger, the worse."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True)
class BreakerLimits:
    """When a breaker opens, and for how long.

    Attributes:
        consecutive_failures: So many failures in a row open it, >= 1.
        failure_share: So large a share of the window's calls failing opens it, in (0, 1].
        min_calls: Fewer calls than this in the window prove nothing about a share, >= 1.
        window_seconds: How far back the share looks, > 0.
        open_seconds: How long no call is made after it opens, > 0.
    """

    consecutive_failures: int = 5
    failure_share: float = 0.5
    min_calls: int = 20
    window_seconds: float = 10.0
    open_seconds: float = 1.0


@dataclass
class _Slot:
    """Outcomes of one part of the window; ``number`` counts parts since the clock's zero."""

    number: int
    num_calls: int = 0
    num_failures: int = 0


class CircuitBreaker:
    """Let calls to one dependency through, or not.

    Args:
        limits: When to open, and for how long.
        clock: Seconds that never go back, such as ``time.monotonic``.

    >>> breaker = CircuitBreaker(BreakerLimits(consecutive_failures=1), clock=lambda: 0.0)
    >>> ticket = breaker.enter()
    >>> breaker.fail(ticket)
    >>> breaker.state, breaker.enter()
    (<BreakerState.OPEN: 2>, None)
    """

    def __init__(self, limits: BreakerLimits, *, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.state = BreakerState.CLOSED
        self.num_entered = dict.fromkeys(BreakerState, 0)
        """How often each state was entered; only ever grows, as a counter needs."""
        self._clock = clock
        self._slot_seconds = limits.window_seconds / NUM_SLOTS
        self._ticket = 1
        self._retry_time = 0.0
        self._num_in_a_row = 0
        self._slots: deque[_Slot] = deque()

    def enter(self) -> int | None:
        """Ask to make a call.

        Returns:
            A ticket to hand back with the outcome, or ``None``: do without the dependency.
        """
        if self.state is not BreakerState.CLOSED:
            now = self._clock()
            if now < self._retry_time:
                return None
            # A half-open breaker gets here when its probe has told nothing for open_seconds: its
            # caller was cancelled, and nobody must wait for it for ever.
            self._retry_time = now + self.limits.open_seconds
            self._go_to(BreakerState.HALF_OPEN)
        return self._ticket

    def succeed(self, ticket: int) -> None:
        """Count a call that was answered."""
        if ticket != self._ticket:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._slots.clear()
            self._go_to(BreakerState.CLOSED)
        self._num_in_a_row = 0
        self._count(num_failures=0)

    def fail(self, ticket: int) -> None:
        """Count a call that was not answered, or too late."""
        if ticket != self._ticket:
            return
        self._num_in_a_row += 1
        self._count(num_failures=1)
        if self.state is BreakerState.HALF_OPEN or self._is_too_much():
            self._retry_time = self._clock() + self.limits.open_seconds
            self._go_to(BreakerState.OPEN)

    def _count(self, *, num_failures: int) -> None:
        number = int(self._clock() / self._slot_seconds)
        slots = self._slots
        if not slots or slots[-1].number != number:
            while slots and slots[0].number <= number - NUM_SLOTS:
                slots.popleft()
            slots.append(_Slot(number))
        slots[-1].num_calls += 1
        slots[-1].num_failures += num_failures

    def _is_too_much(self) -> bool:
        if self._num_in_a_row >= self.limits.consecutive_failures:
            return True
        num_calls = sum(slot.num_calls for slot in self._slots)
        num_failures = sum(slot.num_failures for slot in self._slots)
        is_enough = num_calls >= self.limits.min_calls
        return is_enough and num_failures >= self.limits.failure_share * num_calls

    def _go_to(self, state: BreakerState) -> None:
        """Enter a state; the tickets of the one before are worth nothing from now on."""
        self._ticket += 1
        self._num_in_a_row = 0
        self.state = state
        self.num_entered[state] += 1
