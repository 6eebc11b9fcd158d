"""A tick is killed between any two steps, and another tick ends what it began, once."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.loop_world import START, Killed, LoopWorld, make_config

TO_THE_END = [(0, {"alarm": True}), *((day, {"alarm": False}) for day in (1, 2, 3, 5))]
AND_BACK = [*TO_THE_END[:-1], (4, {"watch": "breach"})]
FROM_THE_CANARY = [*TO_THE_END[:2], (1.5, {"arms": "breach"})]


def tick_in_a_process(world: LoopWorld, day: float) -> int:
    """Take a tick in a child; return its exit code, or the negative number of its signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 3 if world.tick(day)["is_busy"] else 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(runs: Path, number: int):
    """Return a checkpoint that kills its process when it is the ``number``-th of all of them."""
    counter = runs / "checkpoints"

    def count(_: str) -> None:
        with counter.open("ab") as file:
            file.write(b".")
        if counter.stat().st_size == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def live_through(script, runs: Path, *, kill: int) -> tuple[LoopWorld, int]:
    """Live through a script, killed once; return the world and how many ticks were killed."""
    runs.mkdir(parents=True)
    world = LoopWorld(make_config(runs))
    killed = LoopWorld(world.config, checkpoint=kill_at(runs, kill))
    num_killed = 0
    for day, changes in script:
        world.write(**changes)
        while (code := tick_in_a_process(killed, day)) != 0:
            assert code == -signal.SIGKILL
            num_killed += 1
    return world, num_killed


@pytest.mark.parametrize("script", [TO_THE_END, AND_BACK, FROM_THE_CANARY])
def test_killed_between_any_two_steps_the_loop_ends_as_if_it_had_not_been(script, tmp_path):
    whole, _ = live_through(script, tmp_path / "whole", kill=0)
    expected = whole.read(), whole.list_steps()
    kill, num_killed = 0, 1
    while num_killed:
        kill += 1
        world, num_killed = live_through(script, tmp_path / str(kill), kill=kill)
        assert (world.read(), world.list_steps()) == expected, f"killed at checkpoint {kill}"
    assert kill > 20  # there was something to be killed between


def test_of_two_ticks_at_once_one_acts_and_the_other_says_so(tmp_path):
    world = LoopWorld(make_config(tmp_path))
    world.write(alarm=True)

    def work_slowly(name: str) -> None:
        if name == "before training":
            time.sleep(1.0)

    slow = LoopWorld(world.config, checkpoint=work_slowly)
    child = os.fork()
    if child == 0:
        try:
            slow.tick(0)
        finally:
            os._exit(0)
    while not world.config.runs.joinpath("retraining.db").exists() or not world.list_steps():
        time.sleep(0.01)
    result = world.tick(0)
    os.waitpid(child, 0)
    assert result["is_busy"]
    assert f"process {child} on" in result["reason"]
    assert len(world.read()["trained"]) == 1


EVENTS = st.fixed_dictionaries(
    {
        "days": st.sampled_from([0.0, 0.3, 1.0, 3.0]),
        "kill": st.none() | st.integers(1, 30),
        "changes": st.fixed_dictionaries(
            {},
            optional={
                "alarm": st.booleans(),
                "gate": st.sampled_from(["promote", "reject", "wait"]),
                "arms": st.sampled_from(["ok", "ok", "breach", "wait"]),
                "watch": st.sampled_from(["ok", "ok", "breach"]),
                "blocking": st.sampled_from([[], [], ["ip is empty"]]),
                "champion": st.just("1"),
                "rollout": st.none(),
            },
        ),
    }
)


class StrictWorld(LoopWorld):
    """A registry that refuses what the gate has not let through."""

    def promote(self, config, version, key):
        assert version in self.read()["gated"]
        super().promote(config, version, key)

    def set_rollout(self, config, rollout):
        assert rollout is None or rollout.version in self.read()["gated"]
        super().set_rollout(config, rollout)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(EVENTS, min_size=3, max_size=12))
def test_whatever_happens_no_key_trains_twice_the_budget_holds_and_the_gate_is_not_passed_by(
    events,
):
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), retraining__budget=2, retraining__budget_days=6)
        day = 0.0
        for event in events:
            day += event["days"]
            left = [event["kill"]]

            def count(_: str, left=left) -> None:
                if left[0] is not None:
                    left[0] -= 1
                    if left[0] == 0:
                        raise Killed

            StrictWorld(config).write(**event["changes"])
            try:
                StrictWorld(config, checkpoint=count).tick(day)
            except Killed:
                StrictWorld(config).tick(day)
        world = StrictWorld(config)
        with world.open_store() as store:
            attempts = store.load_attempts()
        trained = world.read()["trained"]
        assert len(trained) == len(set(trained))
        assert {item.trigger_key for item in attempts if item.challenger} == set(trained)
        times = [item.opened_time for item in attempts]
        for start in times:
            window = [t for t in times if start <= t < start + pd.Timedelta(days=6)]
            assert len(window) <= 2
        assert not times or times[0] >= START
