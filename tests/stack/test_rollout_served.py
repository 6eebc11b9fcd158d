"""A challenger goes from the shadow to the top and back on a service of two workers under load."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
import pytest

from configs.schema import FraudConfig
from data.fraud import load_transactions
from monitoring.arm_guards import ArmFinding
from monitoring.loop_machine import advance_loop
from monitoring.loop_wiring import build_parts
from monitoring.retraining_policy import Alarm, Observation
from serving.admin import TOKEN_VARIABLE
from serving.load_messages import draw_messages
from serving.prediction_log import get_prediction_folder, load_predictions
from serving.server import find_free_port, start_service
from tests.stack.stream_world import wait_until
from tests.stack.twin_versions import make_version
from training.promotion import set_alias, set_rollout
from training.registry import CHAMPION, find_artefact, find_version, get_champion, get_rollout
from training.rollout import Rollout

pytestmark = pytest.mark.stack
TOKEN = "correct-horse-battery"
TAKES_EFFECT_SECONDS = 2.0
SHIFT = 0.7
"""Of the challenger's log-odds, so that an answer's score tells who gave it."""


class Answered(NamedTuple):
    """An answer: when it was asked for, to which message, and what it says."""

    asked: float
    row: int
    version: str
    score: float


class World:
    """A service, and what champion and challenger say to some messages."""

    def __init__(self, config: FraudConfig, url: str, messages: list[dict[str, Any]]) -> None:
        self.runs = config.runs
        self.url = url
        self.messages = messages
        self.champion, _ = get_champion(config.runs)
        self.base = np.array([answer["score"] for answer in self.ask()])

    def ask(self) -> list[dict[str, Any]]:
        body = {"transactions": self.messages}
        answer = httpx.post(f"{self.url}/v1/score_batch", json=body, timeout=10, trust_env=False)
        return list(answer.json()["predictions"])

    def get_states(self) -> list[dict[str, Any]]:
        """Ask ``/model`` over some connections; each is accepted by any worker."""
        return [
            httpx.get(f"{self.url}/model", timeout=10, trust_env=False).json() for _ in range(8)
        ]

    def wait_for(self, is_so: Callable[[dict[str, Any]], bool]) -> float:
        """Wait until all workers say so; return how long that took."""
        started = time.monotonic()
        wait_until(lambda: all(map(is_so, self.get_states())))
        return time.monotonic() - started

    def roll_back(self) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.post(
            f"{self.url}/admin/rollback", headers=headers, timeout=30, trust_env=False
        )

    def expect(self, row: int, version: str) -> float:
        """Say what a version's score must be: the log-odds of the champion's, shifted."""
        if version == self.champion:
            return float(self.base[row])
        odds = self.base[row] / (1 - self.base[row]) * np.exp(SHIFT)
        return float(odds / (1 + odds))

    def find_versions(self, rollout: Rollout, answers: list[Answered]) -> tuple[set[str], set[str]]:
        """Say who answered the rollout's customers, and who the others."""
        mine, others = set(), set()
        for answer in answers:
            customer = self.messages[answer.row]["customer_id"]
            (mine if rollout.has(customer) else others).add(answer.version)
        return mine, others


class Load:
    """Asks over and over, and remembers every answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_over = threading.Event()
        self.answers: list[Answered] = []
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._is_over.is_set():  # a connection at a time, so that both workers are met
            try:
                self._ask_some()
            except httpx.TransportError as error:
                self.problems.append(type(error).__name__)

    def _ask_some(self) -> None:
        messages = self._world.messages
        with httpx.Client(base_url=self._world.url, timeout=10, trust_env=False) as client:
            for row in range(5):
                asked = time.monotonic()
                batch = client.post("/v1/score_batch", json={"transactions": messages})
                single = client.post("/v1/score", json=messages[row])
                if not (batch.is_success and single.is_success):
                    self.problems.append(f"{batch.status_code} {single.status_code}")
                    continue
                said = [*enumerate(batch.json()["predictions"]), (row, single.json())]
                self.answers += [
                    Answered(asked, place, answer["model_version"], answer["score"])
                    for place, answer in said
                ]

    def between(self, start: float, end: float) -> list[Answered]:
        """Return what was asked a while after a change and before the next."""
        return [a for a in self.answers if start + TAKES_EFFECT_SECONDS < a.asked < end - 0.2]

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor() as threads:
            running = [threads.submit(self.run) for _ in range(2)]
            try:
                yield
            finally:
                self._is_over.set()
            for future in running:
                future.result()


@pytest.fixture(scope="module")
def served(tiny_world: FraudConfig) -> Iterator[World]:
    serving = tiny_world.serving.model_copy(update={"workers": 2})
    config = tiny_world.model_copy(update={"serving": serving})
    messages = draw_messages(load_transactions(tiny_world.runs), num_messages=20, seed=11)
    for number, message in enumerate(messages):
        message["transaction_id"] = f"rollout-{number}"  # a load test's would not be read back
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        with start_service(config, port=find_free_port()) as url:
            patch.delenv(TOKEN_VARIABLE)
            yield World(config, url, messages)


@pytest.fixture
def world(served: World) -> Iterator[World]:
    """Two workers with the first champion and no rollout, before the test and after it."""
    wait_until(lambda: len({state["worker"] for state in served.get_states()}) == 2, seconds=150)
    yield served
    set_rollout(served.runs, None)
    set_alias(served.runs, CHAMPION, version=served.champion)
    served.wait_for(lambda state: state["model_version"] == served.champion)


def make_canary(world: World, config: FraudConfig, folder: Path) -> Rollout:
    """Register a challenger and draw a share that some of the messages' customers are in."""
    version = make_version(config, folder, shift=SHIFT)
    canary = Rollout(version, "canary", 0.5)
    customers = {message["customer_id"] for message in world.messages}
    assert 0 < sum(map(canary.has, customers)) < len(customers)
    return canary


def test_from_the_shadow_to_the_top_and_back_with_no_failed_and_no_mixed_up_answer(
    world, tiny_world, tmp_path, record_property
):
    canary = make_canary(world, tiny_world, tmp_path)
    challenger = canary.version
    shadow = Rollout(challenger, "shadow", 0.0)
    load = Load(world)
    moments, seconds = [], []

    def change(do: Callable[[], object], *, version: str, rollout: Rollout | None) -> None:
        do()
        moments.append(time.monotonic())
        stage = rollout and rollout.stage
        seconds.append(
            world.wait_for(
                lambda state: (
                    state["model_version"] == version
                    and (state["rollout"] and state["rollout"]["stage"]) == stage
                )
            )
        )
        time.sleep(max(0.0, moments[-1] + TAKES_EFFECT_SECONDS + 1.0 - time.monotonic()))

    with load.running():
        champion = world.champion
        change(lambda: set_rollout(world.runs, shadow), version=champion, rollout=shadow)
        change(lambda: set_rollout(world.runs, canary), version=champion, rollout=canary)
        change(
            lambda: set_alias(world.runs, CHAMPION, version=challenger),
            version=challenger,
            rollout=None,
        )
        change(world.roll_back, version=champion, rollout=None)
        moments.append(time.monotonic())

    record_property("seconds_until_all_workers_said_so", [round(one, 2) for one in seconds])
    assert load.problems == []
    for answer in load.answers:
        assert answer.score == pytest.approx(world.expect(answer.row, answer.version), abs=1e-9)
    in_shadow, in_canary, promoted, rolled_back = (
        world.find_versions(canary, load.between(start, end)) for start, end in pairwise(moments)
    )
    assert in_shadow == ({champion}, {champion})
    assert in_canary == ({challenger}, {champion})
    assert promoted == ({challenger}, {challenger})
    assert rolled_back == ({champion}, {champion})

    predictions, _ = load_predictions(get_prediction_folder(world.runs), with_shadow=True)
    mine = predictions[predictions["transaction_id"].str.startswith("rollout-")]
    rows = mine["transaction_id"].str.removeprefix("rollout-").astype(int)
    expected = [world.expect(*pair) for pair in zip(rows, mine["model_version"], strict=True)]
    np.testing.assert_allclose(mine["score"], expected, atol=1e-9)
    told = set(zip(mine["arm"], mine["model_version"], strict=True))
    assert told == {
        ("champion", champion),
        ("shadow", challenger),
        ("challenger", challenger),
        ("champion", challenger),
    }


def test_an_operators_rollback_ends_a_canary_and_only_that(world, tiny_world, tmp_path):
    canary = make_canary(world, tiny_world, tmp_path)
    load = Load(world)
    with load.running():
        set_rollout(world.runs, canary)
        world.wait_for(lambda state: state["rollout"] is not None)
        answer = world.roll_back()
        moved_back = time.monotonic()
        time.sleep(TAKES_EFFECT_SECONDS + 1.0)
        repeated = world.roll_back()
    said = {"from": world.champion, "to": world.champion, "dropped": str(canary)}
    assert (answer.status_code, answer.json()) == (200, said)
    assert repeated.status_code == 409
    assert load.problems == []
    after = load.between(moved_back, float("inf"))
    assert world.find_versions(canary, after) == ({world.champion}, {world.champion})
    assert (find_version(world.runs, CHAMPION), get_rollout(world.runs)) == (world.champion, None)


def make_loop_config(config: FraudConfig, folder: Path, shares: tuple[float, ...]) -> FraudConfig:
    """A loop with a database of its own, which trains at the first alarm and judges in the stages.

    Without shares of a canary a challenger is promoted at once, and watched.
    """
    retraining = {
        "database_url": f"sqlite:///{folder / 'loop.db'}",
        "triggers": ("drift",),
        "floor_days": None,
        "follow_up_days": None,
        "min_alarms": 1,
        "num_recent": 1,
        "cooldown_days": 0.0,
        "min_new_frauds": 0,
    }
    rollout = {
        "gate": False,
        "shadow_days": 0.0,
        "canary_shares": shares,
        "canary_days": 2.0,
        "watch_days": 2.0,
    }
    return config.model_copy(
        update={
            "retraining": config.retraining.model_copy(update=retraining),
            "rollout": config.rollout.model_copy(update=rollout),
        }
    )


def see_drift(config: FraudConfig, now: pd.Timestamp) -> Observation:
    """Find the feed sound and the world moved."""
    champion, _ = get_champion(config.runs)
    alarms = {"drift": Alarm(is_on=True, reason="3 features drifted")}
    return Observation(now, champion, now - pd.Timedelta(days=60), (), alarms, num_new_frauds=100)


def find_breach(*_: object) -> tuple[ArmFinding, ...]:
    """Find a guard breached, whatever was asked."""
    return (ArmFinding("cost", "breach", "it costs twice as much"),)


@pytest.mark.parametrize(("stage", "shares"), [("canary", (0.5,)), ("watching", ())])
def test_a_challenger_the_loop_takes_back_answers_nobody_two_seconds_after_the_tick(
    world, tiny_world, tmp_path, stage, shares
):
    """All but the evidence is real: the loop's database, the registry, the service and its load."""
    config = make_loop_config(tiny_world, tmp_path, shares)

    def train(config: FraudConfig, **_: object) -> dict[str, Any]:
        return {"challenger": {"version": make_version(config, tmp_path, shift=SHIFT)}}

    parts = replace(
        build_parts(train),
        observe=see_drift,
        compare_arms=find_breach,
        compare_with_previous=find_breach,
    )
    start = pd.Timestamp("2026-05-01T06:00Z")
    first = advance_loop(config, now=start, parts=parts)
    assert first["state"] == stage, first
    challenger = first["attempts"][0]["challenger"]
    world.wait_for(
        lambda state: (
            challenger in (state["model_version"], (state["rollout"] or {}).get("version"))
        )
    )
    load = Load(world)
    with load.running():
        began = time.monotonic()
        time.sleep(2.0)
        last = advance_loop(config, now=start + pd.Timedelta(hours=1), parts=parts)
        ended = time.monotonic()
        time.sleep(TAKES_EFFECT_SECONDS + 3.0)
    assert last["transitions"][0]["to_state"] == "rolled_back", last
    assert (get_champion(world.runs)[0], get_rollout(world.runs)) == (world.champion, None)
    assert load.problems == []
    for answer in load.answers:
        assert answer.score == pytest.approx(world.expect(answer.row, answer.version), abs=1e-9)
    before = [answer for answer in load.answers if began < answer.asked < ended - 1.0]
    assert challenger in {answer.version for answer in before}
    after = [answer for answer in load.answers if answer.asked > ended + TAKES_EFFECT_SECONDS]
    assert {answer.version for answer in after} == {world.champion}


def test_a_truncated_challenger_is_refused_and_the_champion_answers_everybody(
    world, tiny_world, tmp_path
):
    canary = make_canary(world, tiny_world, tmp_path)
    model = find_artefact(world.runs, canary.version) / "model.txt"
    os.truncate(model, model.stat().st_size // 2)
    load = Load(world)
    with load.running():
        set_rollout(world.runs, canary)
        world.wait_for(lambda state: state["rollout_refused"] is not None)
        state = world.get_states()[0]
        time.sleep(0.5)
    assert state["rollout"] is None
    assert state["rollout_refused"]["version"] == canary.version
    assert "model.txt has changed" in state["rollout_refused"]["reason"]
    assert state["refused"] is None
    assert load.problems == []
    assert {answer.version for answer in load.answers} == {world.champion}


def test_a_worker_killed_in_a_canary_comes_back_into_it(world, tiny_world, tmp_path):
    canary = make_canary(world, tiny_world, tmp_path)
    load = Load(world)
    set_rollout(world.runs, canary)
    world.wait_for(lambda state: state["rollout"] is not None)
    killed = world.get_states()[0]["worker"]

    def is_replaced() -> bool:
        try:
            states = world.get_states()
        except httpx.TransportError:
            return False
        workers = {state["worker"] for state in states}
        return killed not in workers and len(workers) == 2

    with load.running():
        os.kill(killed, signal.SIGKILL)
        wait_until(is_replaced, seconds=150)  # BentoML looks every ten seconds
        time.sleep(1.0)
    assert all(state["rollout"]["version"] == canary.version for state in world.get_states())
    assert world.find_versions(canary, load.answers) == ({canary.version}, {world.champion})
    for answer in load.answers:
        assert answer.score == pytest.approx(world.expect(answer.row, answer.version), abs=1e-9)
    assert set(load.problems) <= {"ReadError", "RemoteProtocolError", "ConnectError", "ReadTimeout"}
