"""A breaker opens on failures, probes once, closes on success; a list of calls is the judge."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.circuit_breaker import NUM_SLOTS, BreakerLimits, BreakerState, CircuitBreaker

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
LIMITS = BreakerLimits(
    consecutive_failures=3, failure_share=0.5, min_calls=6, window_seconds=10, open_seconds=2
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(LIMITS, clock=clock)


def call(breaker: CircuitBreaker, outcomes: str) -> None:
    """Make one call after another: ``.`` is answered, ``x`` is not."""
    for outcome in outcomes:
        ticket = breaker.enter()
        assert ticket is not None
        (breaker.succeed if outcome == "." else breaker.fail)(ticket)


def test_failures_in_a_row_open_it(breaker):
    call(breaker, "xx")
    assert breaker.state is CLOSED
    call(breaker, "x")
    assert (breaker.state, breaker.enter()) == (OPEN, None)


def test_a_success_between_failures_begins_the_row_anew(breaker):
    call(breaker, "xx.xx")
    assert breaker.state is CLOSED


def test_half_of_the_calls_failing_opens_it_once_there_are_enough_calls(breaker):
    call(breaker, "x.x.x")
    assert breaker.state is CLOSED  # three of five, and five are too few
    call(breaker, "x")
    assert breaker.state is OPEN


def test_failures_older_than_the_window_do_not_count_towards_the_share(breaker, clock):
    call(breaker, "x.x.x")
    clock.now += 10.0
    call(breaker, ".....x")
    assert breaker.state is CLOSED


def test_after_the_pause_one_call_is_let_through_and_no_second(breaker, clock):
    call(breaker, "xxx")
    clock.now += 1.9
    assert breaker.enter() is None
    clock.now += 0.1
    assert breaker.enter() is not None
    assert (breaker.state, breaker.enter()) == (HALF_OPEN, None)


def test_a_probe_that_is_answered_closes_it_with_the_failures_forgotten(breaker, clock):
    call(breaker, "xxx")
    clock.now += 2.0
    call(breaker, ".")
    assert breaker.state is CLOSED
    call(breaker, "xx")
    assert breaker.state is CLOSED


def test_a_probe_that_fails_opens_it_for_as_long_again(breaker, clock):
    call(breaker, "xxx")
    clock.now += 2.0
    call(breaker, "x")
    clock.now += 1.9
    assert (breaker.state, breaker.enter()) == (OPEN, None)
    clock.now += 0.1
    assert breaker.enter() is not None


def test_a_probe_nobody_hears_of_again_is_followed_by_another_after_the_pause(breaker, clock):
    call(breaker, "xxx")
    clock.now += 2.0
    lost = breaker.enter()
    clock.now += 2.0
    probe = breaker.enter()
    assert probe is not None
    breaker.fail(lost)
    assert breaker.state is HALF_OPEN
    breaker.succeed(probe)
    assert breaker.state is CLOSED


def test_an_answer_to_a_call_made_before_it_opened_does_not_close_it(breaker):
    early = breaker.enter()
    call(breaker, "xxx")
    breaker.succeed(early)
    assert breaker.state is OPEN


def test_failures_of_calls_made_before_it_opened_do_not_open_it_again_after_it_closed(
    breaker, clock
):
    early = [breaker.enter() for _ in range(3)]
    call(breaker, "xxx")
    clock.now += 2.0
    call(breaker, ".")
    for ticket in early:
        breaker.fail(ticket)
    assert breaker.state is CLOSED


def test_each_state_counts_how_often_it_was_entered(breaker, clock):
    call(breaker, "xxx")
    clock.now += 2.0
    call(breaker, "x")
    clock.now += 2.0
    call(breaker, ".")
    assert breaker.num_entered == {OPEN: 2, HALF_OPEN: 2, CLOSED: 1}


class BreakerBesideAList(RuleBasedStateMachine):
    """Every outcome is kept with its time; what the breaker must do is worked out from the list.

    ``period`` numbers the stretches between two changes of state; a call belongs to one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = CircuitBreaker(LIMITS, clock=self.clock)
        self.state = CLOSED
        self.period = 0
        self.waits_until = 0.0
        self.out: list[tuple[int, int]] = []  # (ticket, period)
        self.outcomes: list[tuple[int, float, bool]] = []  # (period, time, succeeded)

    def change(self, state: BreakerState) -> None:
        self.state = state
        self.period += 1

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.7, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def ask(self) -> None:
        ticket = self.breaker.enter()
        if self.state is not CLOSED:
            if self.clock.now < self.waits_until:
                assert ticket is None
                return
            self.change(HALF_OPEN)
            self.waits_until = self.clock.now + 2
        assert ticket is not None
        self.out.append((ticket, self.period))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), succeeded=st.booleans())
    def hear(self, data: st.DataObject, succeeded: bool) -> None:
        ticket, period = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        (self.breaker.succeed if succeeded else self.breaker.fail)(ticket)
        if period != self.period:
            return
        if self.state is HALF_OPEN:
            self.change(CLOSED if succeeded else OPEN)
        self.outcomes.append((self.period, self.clock.now, succeeded))
        if not succeeded and self.must_open():
            self.change(OPEN)
        if self.state is OPEN:
            self.waits_until = self.clock.now + 2

    def must_open(self) -> bool:
        mine = [(time, ok) for period, time, ok in self.outcomes if period == self.period]
        last = [ok for _, ok in mine][-3:]
        slot = 10 / NUM_SLOTS
        first = int(self.clock.now / slot) - NUM_SLOTS
        recent = [ok for time, ok in mine if int(time / slot) > first]
        is_share = len(recent) >= 6 and recent.count(False) * 2 >= len(recent)
        return last == [False] * 3 or is_share

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.state is self.state
        assert sum(self.breaker.num_entered.values()) == self.period


TestBreakerBesideAList = BreakerBesideAList.TestCase
TestBreakerBesideAList.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
