"""Callers share batches, and nothing else."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.micro_batcher import MicroBatcher

FOREVER_MS = 60_000.0


class Device:
    """Gives each row's first column back, negated, and remembers what it was asked."""

    def __init__(self):
        self.batches = []
        self.threads = set()
        self.may_go = threading.Event()
        self.may_go.set()

    def margins(self, matrix):
        assert self.may_go.wait(10)
        self.batches.append(len(matrix))
        self.threads.add(threading.current_thread())
        if (matrix[:, 0] < 0).any():
            raise RuntimeError("out of memory")
        return -matrix[:, 0]


def make_rows(*values):
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def run(scenario, *, max_rows=8, max_wait_ms=0.0):
    """Run ``scenario(batcher, device)`` in a loop of its own, and close the batcher."""
    device = Device()

    async def play():
        batcher = MicroBatcher(device.margins, max_rows=max_rows, max_wait_ms=max_wait_ms)
        try:
            return await asyncio.wait_for(scenario(batcher, device), 20)
        finally:
            device.may_go.set()
            await batcher.close()

    return asyncio.run(play()), device


callers = st.lists(
    st.tuples(
        st.integers(0, 20),  # rows
        st.integers(0, 3),  # ticks of the loop before it asks
        st.booleans(),  # whether it leaves before it is answered
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(callers=callers, max_rows=st.integers(1, 9), max_wait_ms=st.sampled_from([0.0, 0.3]))
def test_every_caller_gets_exactly_its_own_rows_in_its_order(callers, max_rows, max_wait_ms):
    starts = np.cumsum([0, *(rows for rows, _, _ in callers)])

    async def ask(batcher, position):
        rows, ticks, leaves = callers[position]
        for _ in range(ticks):
            await asyncio.sleep(0)
        values = np.arange(starts[position], starts[position] + rows, dtype=np.float64)
        task = asyncio.ensure_future(batcher.margins(values.reshape(-1, 1)))
        if leaves:
            await asyncio.sleep(0)
            task.cancel()
            return None
        return values, await task

    async def scenario(batcher, _):
        return await asyncio.gather(*(ask(batcher, i) for i in range(len(callers))))

    answers, device = run(scenario, max_rows=max_rows, max_wait_ms=max_wait_ms)

    for asked, margins in filter(None, answers):
        np.testing.assert_array_equal(margins, -asked)
    assert max(device.batches, default=0) <= max_rows


def test_callers_of_one_moment_share_a_batch():
    async def scenario(batcher, _):
        await asyncio.gather(*(batcher.margins(make_rows(i)) for i in range(5)))

    _, device = run(scenario)
    assert device.batches == [5]


def test_a_full_batch_does_not_wait_for_its_time():
    async def scenario(batcher, _):
        await asyncio.gather(*(batcher.margins(make_rows(i)) for i in range(4)))

    _, device = run(scenario, max_rows=4, max_wait_ms=FOREVER_MS)
    assert device.batches == [4]


def test_a_batch_that_never_fills_goes_when_its_time_is_up():
    async def scenario(batcher, _):
        return await batcher.margins(make_rows(3.0))

    margins, device = run(scenario, max_rows=100, max_wait_ms=5.0)
    assert (margins.tolist(), device.batches) == ([-3.0], [1])


def test_a_caller_with_more_rows_than_a_batch_takes_gets_several_and_one_answer():
    async def scenario(batcher, _):
        return await batcher.margins(make_rows(*range(10)))

    margins, device = run(scenario, max_rows=4)
    assert margins.tolist() == [-float(i) for i in range(10)]
    assert device.batches == [4, 4, 2]


def test_no_rows_are_answered_at_once_without_the_device():
    async def scenario(batcher, _):
        return await batcher.margins(np.empty((0, 1)))

    margins, device = run(scenario, max_wait_ms=FOREVER_MS)
    assert margins.shape == (0,)
    assert device.batches == []


def test_rows_that_come_while_the_device_works_make_the_next_batch():
    async def scenario(batcher, device):
        device.may_go.clear()
        first = asyncio.ensure_future(batcher.margins(make_rows(1)))
        await asyncio.sleep(0.02)  # it is in the device now
        rest = [asyncio.ensure_future(batcher.margins(make_rows(i))) for i in (2, 3)]
        await asyncio.sleep(0.02)
        device.may_go.set()
        await asyncio.gather(first, *rest)

    _, device = run(scenario)
    assert device.batches == [1, 2]


def test_the_event_loop_goes_on_while_the_device_works_in_its_one_thread():
    async def scenario(batcher, device):
        device.may_go.clear()
        waiting = asyncio.ensure_future(batcher.margins(make_rows(1)))
        for _ in range(50):
            await asyncio.sleep(0)  # would not return, were the loop blocked
        device.may_go.set()
        await waiting
        await batcher.margins(make_rows(2))

    _, device = run(scenario)
    (thread,) = device.threads
    assert thread is not threading.main_thread()


def test_a_failed_batch_fails_its_own_callers_and_no_other():
    async def scenario(batcher, _):
        asked = [batcher.margins(make_rows(value)) for value in (1, -1, 2, 3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    (first, second, third, fourth), _ = run(scenario, max_rows=2)
    assert [str(first), str(second)] == ["out of memory"] * 2
    assert [third.tolist(), fourth.tolist()] == [[-2.0], [-3.0]]


def test_a_caller_who_leaves_while_it_waits_is_not_scored_and_the_others_are():
    async def scenario(batcher, device):
        device.may_go.clear()
        first = asyncio.ensure_future(batcher.margins(make_rows(1)))
        await asyncio.sleep(0.02)
        leaving, staying = (asyncio.ensure_future(batcher.margins(make_rows(i))) for i in (2, 3))
        await asyncio.sleep(0)
        leaving.cancel()
        device.may_go.set()
        return await asyncio.gather(first, staying)

    (first, staying), device = run(scenario)
    assert (first.tolist(), staying.tolist(), device.batches) == ([-1.0], [-3.0], [1, 1])


def test_a_caller_who_leaves_while_it_is_scored_harms_nobody_in_its_batch():
    async def scenario(batcher, device):
        device.may_go.clear()
        leaving, staying = (asyncio.ensure_future(batcher.margins(make_rows(i))) for i in (1, 2))
        await asyncio.sleep(0.02)
        leaving.cancel()
        device.may_go.set()
        return await staying, await batcher.margins(make_rows(3))

    (staying, later), device = run(scenario)
    assert (staying.tolist(), later.tolist(), device.batches) == ([-2.0], [-3.0], [2, 1])


def test_closing_answers_everybody_who_waits_without_waiting_for_their_time():
    async def scenario(batcher, _):
        waiting = [asyncio.ensure_future(batcher.margins(make_rows(i))) for i in range(5)]
        await asyncio.sleep(0)
        await batcher.close()
        return [task.result().tolist() for task in waiting]

    margins, _ = run(scenario, max_wait_ms=FOREVER_MS)
    assert margins == [[-float(i)] for i in range(5)]


def test_a_closed_batcher_takes_nothing_in():
    async def scenario(batcher, _):
        await batcher.close()
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.margins(make_rows(1))

    run(scenario)


def test_bounds_that_hold_nothing_are_refused():
    with pytest.raises(ValueError, match="0 rows"):
        MicroBatcher(lambda matrix: matrix, max_rows=0, max_wait_ms=1.0)
    with pytest.raises(ValueError, match="-1 ms"):
        MicroBatcher(lambda matrix: matrix, max_rows=1, max_wait_ms=-1.0)
