"""A fraud service whose Redis stands behind a proxy: faults come while answers are checked.

What was answered before a fault, with the whole history, is what must be answered during and after
it, unless the answer says that it is degraded.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from configs.files import read_json, write_json
from configs.schema import FraudConfig
from data.fraud import load_transactions
from features.fraud_rebuild import run_rebuild
from features.store import REDIS_VARIABLE, get_stamp_file
from serving.decisions import STALE
from serving.load_messages import (
    Expected,
    draw_messages,
    make_id_prefix,
    render_bodies,
)
from serving.load_plan import Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.prediction_log import get_prediction_folder
from serving.server import find_free_port, start_service
from tests.conftest import RedisServer
from tests.stack.fault_check import SLOTS_PER_SECOND, FaultCheck, get_slot
from tests.stack.fault_proxy import FaultProxy, start_fault_proxy

NUM_MESSAGES = 60
RATE = 200.0


@dataclass(frozen=True)
class ServedWorld:
    """A service that runs, and what to ask it.

    Attributes:
        messages: Transactions of known customers, each asked about again and again.
        expected: What the service says to them when nothing is wrong.
    """

    config: FraudConfig
    url: str
    redis: RedisServer
    proxy: FaultProxy
    messages: list[dict[str, Any]]
    expected: list[Expected]

    def get_state(self) -> dict[str, Any]:
        """Ask ``/model``."""
        answer = httpx.get(f"{self.url}/model", timeout=10, trust_env=False)
        state: dict[str, Any] = answer.json()
        return state

    def read_metrics(self) -> dict[str, float]:
        """Read our samples of ``/metrics``."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text.splitlines()
        samples = [line.rpartition(" ") for line in lines if line.startswith("throughline_")]
        return {name: float(value) for name, _, value in samples}

    def is_whole(self) -> bool:
        """Whether every message is answered as it was before any fault."""
        try:
            answers = ask(self.url, self.messages)
        except httpx.TransportError:
            return False
        return [read_expected(answer) for answer in answers] == self.expected

    def rebuild_store(self) -> None:
        """Do what an operator does whose Redis has lost everything."""
        run_rebuild(self.config)


def ask(url: str, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask ``/v1/score_batch``; an answer of another status than 200 is no answer."""
    response = httpx.post(
        f"{url}/v1/score_batch", json={"transactions": messages}, timeout=10, trust_env=False
    )
    return response.json()["predictions"] if response.is_success else []


def read_expected(answer: dict[str, Any]) -> Expected | None:
    """Take what must not change from an answer; ``None`` if it is degraded."""
    if answer["degraded_reason"] is not None:
        return None
    return Expected(answer["score"], answer["decision"], answer["model_version"])


@contextmanager
def serve_world(source: FraudConfig, folder: Path, **changes: Any) -> Iterator[ServedWorld]:
    """Serve a copy of a world from a Redis of its own, behind a proxy.

    Args:
        source: Of the world; its online store is a file.
        folder: For the copy; empty.
        changes: Of the ``serving`` section, by name.
    """
    runs = folder / "runs"
    shutil.copytree(source.runs, runs)
    shutil.rmtree(get_prediction_folder(runs), ignore_errors=True)
    server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "everysec")
    server.start()
    stamp = get_stamp_file(runs)
    write_json(stamp, read_json(stamp) | {"redis_url": server.url})
    config = source.model_copy(
        update={
            "runs": runs,
            "profile": "stack",
            "stack": source.stack.model_copy(update={"redis_url": server.url}),
            "serving": source.serving.model_copy(update=changes),
        }
    )
    try:
        run_rebuild(config)
        as_of = pd.Timestamp(read_json(stamp)["as_of"])
        messages = draw_messages(
            load_transactions(runs), num_messages=NUM_MESSAGES, seed=7, now=as_of
        )
        with start_fault_proxy(server.port) as proxy, pytest.MonkeyPatch.context() as patch:
            patch.setenv(REDIS_VARIABLE, f"redis://127.0.0.1:{proxy.port}/0")
            with start_service(config, port=find_free_port()) as url:
                patch.delenv(REDIS_VARIABLE)
                expected = ask_until_whole(url, messages)
                yield ServedWorld(config, url, server, proxy, messages, expected)
    finally:
        server.resume()
        server.stop()


def ask_until_whole(url: str, messages: Sequence[dict[str, Any]]) -> list[Expected]:
    """Ask until no answer is degraded: on a busy machine the first may take too long."""
    for _attempt in range(100):
        answers = [read_expected(answer) for answer in ask(url, messages)]
        known = [answer for answer in answers if answer is not None]
        if len(known) == len(messages):
            return known
        time.sleep(0.1)
    raise AssertionError("the service answers without its store")


@dataclass(frozen=True)
class FaultRun:
    """Load while a fault came and went; slots are those of ``get_slot``."""

    result: LoadResult
    begun: int
    ended: int

    def count(self, kind: str, *, first: int, last: int | None = None) -> int:
        """Count the ``whole`` or ``degraded`` answers of slots ``first`` to ``last``."""
        return sum(
            count
            for slot, count in self.result.tallies[kind].items()
            if int(slot) >= first and (last is None or int(slot) <= last)
        )

    @property
    def recovery_seconds(self) -> float:
        """How long after the fault's end an answer was still degraded."""
        slots = [int(slot) for slot in self.result.tallies["degraded"] if int(slot) > self.ended]
        return (max(slots, default=self.ended) - self.ended) / SLOTS_PER_SECOND


def load_through(
    world: ServedWorld,
    *,
    begin: Callable[[], object],
    end: Callable[[], object],
    fault_seconds: float = 2.0,
    after_seconds: float = 3.0,
    rate: float = RATE,
) -> FaultRun:
    """Ask about the messages for a while, with a fault in the middle.

    Args:
        world: What is asked.
        begin: Brings the fault, a second after the load has begun.
        end: Takes it away.
        fault_seconds: How long there is a fault, at least.
        after_seconds: How long to ask on, if ``end`` returns at once.
        rate: Requests a second.
    """
    slots: list[int] = []
    has_started = threading.Event()

    def bring_and_take() -> None:
        has_started.wait(60)
        time.sleep(1.0)
        begin()
        slots.append(get_slot())
        time.sleep(fault_seconds)
        end()
        slots.append(get_slot())

    thread = threading.Thread(target=bring_and_take, daemon=True)
    thread.start()
    prefix = make_id_prefix()
    result = measure_load(
        Target(world.url, "/v1/score"),
        render_bodies(world.messages, path="/v1/score", id_prefix=prefix),
        rate=rate,
        connections=32,
        seconds=1.0 + fault_seconds + after_seconds,
        warm_up_seconds=0.0,
        check=FaultCheck(id_prefix=prefix, expected=world.expected, stale=STALE),
        watch=lambda seconds: has_started.set() if seconds >= 0 else None,
    )
    thread.join(180)
    assert len(slots) == 2, "the fault did not come and go"
    return FaultRun(result, *slots)
