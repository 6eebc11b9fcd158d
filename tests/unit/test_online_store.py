"""A store that is slow, away or replaced costs history, never the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.fraud_selection import FeatureSet
from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import SharedSummaries
from serving import online_store
from serving.circuit_breaker import BreakerLimits, BreakerState
from serving.online_store import OTHER_FEATURES, OnlineStore, OpenedStore, StoreAnswer

DEADLINE_SECONDS = 0.05


@dataclass
class FakeReader:
    """Answers with the number of the build it was opened from."""

    build: int
    error: Exception | None = None
    is_slow: bool = False
    num_reads: int = 0
    is_closed: bool = False
    summaries: SharedSummaries = field(default_factory=SharedSummaries)

    async def read(self, requests: RowRequests) -> RowStates:
        self.num_reads += 1
        if self.error is not None:
            raise self.error
        if self.is_slow:
            await asyncio.sleep(60)
        num = len(requests.customers)
        located = self.summaries.locate([None] * num, [None] * num)
        return RowStates([b"%d" % self.build] * num, [b""] * num, located)

    def close(self) -> None:
        self.is_closed = True


class FakeFolder:
    """Files that can be replaced, as ``throughline fraud features`` does."""

    def __init__(self, stamp_file: Path) -> None:
        self.stamp_file = stamp_file
        self.readers: list[FakeReader] = []
        self.build = 0
        self.rebuild("amount_log")

    def rebuild(self, *names: str) -> None:
        self.build += 1
        self.names = names
        part = self.stamp_file.with_suffix(".part")
        part.write_text(str(self.build))
        part.replace(self.stamp_file)

    def open(self) -> OpenedStore:
        if not self.stamp_file.exists():
            raise FileNotFoundError("no feature store")
        self.readers.append(FakeReader(self.build))
        features = FeatureSet(names=self.names, categorical=(), dropped={})
        return OpenedStore(self.readers[-1], features, DEADLINE_SECONDS)


Scenario = Callable[[OnlineStore, FakeFolder], Awaitable[Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``scenario(store, folder)`` on a store that was just opened."""
    monkeypatch.setattr(online_store, "REOPEN_SECONDS", 0.0)
    folder = FakeFolder(tmp_path / "features.json")

    def play(scenario: Scenario, *, failures: int = 100, max_age_seconds: float = 60.0) -> Any:
        async def begin() -> Any:
            store = OnlineStore(
                open_store=folder.open,
                stamp_file=folder.stamp_file,
                max_age_seconds=max_age_seconds,
                breaker=BreakerLimits(consecutive_failures=failures, open_seconds=0.05),
            )
            return await asyncio.wait_for(scenario(store, folder), 20)

        return asyncio.run(begin())

    return play


def ask(store: OnlineStore, *customers: str) -> Awaitable[StoreAnswer]:
    names = list(customers or ["ann"])
    num = len(names)
    none: list[str | None] = [None] * num
    return store.read(
        RowRequests(names, none, none, none, np.zeros((num, 5), np.int64), np.zeros((num, 3)))
    )


async def ask_until_it_answers(store: OnlineStore) -> StoreAnswer:
    while True:
        answer = await ask(store)
        if answer.ages == [0.0]:
            return answer
        await asyncio.sleep(0.005)


def test_a_store_that_answers_is_believed_and_opened_once(run):
    async def scenario(store, folder):
        answers = [await ask(store, "ann", "bob") for _ in range(2)]
        return [(a.states.customers, a.ages) for a in answers], len(folder.readers), store.error

    answers, num_opened, error = run(scenario)
    assert answers == [([b"1", b"1"], [0.0, 0.0])] * 2
    assert (num_opened, error) == (1, None)


def test_a_store_that_fails_is_answered_for_by_what_it_said_last(run):
    async def scenario(store, folder):
        await ask(store)
        folder.readers[0].error = OSError("disk I/O error")
        return await ask(store, "ann", "stranger"), store.error

    answer, error = run(scenario)
    assert answer.states.customers == [b"1", b""]
    assert answer.ages[0] > 0
    assert answer.ages[1] is None
    assert error == "OSError('disk I/O error')"


def test_a_store_that_answers_again_is_believed_again(run):
    async def scenario(store, folder):
        folder.readers[0].error = OSError("disk I/O error")
        await ask(store)
        folder.readers[0].error = None
        return (await ask(store)).ages, store.error

    assert run(scenario) == ([0.0], None)


def test_a_store_that_is_slower_than_its_deadline_is_not_waited_for(run):
    async def scenario(store, folder):
        folder.readers[0].is_slow = True
        return (await ask(store)).ages, store.error

    assert run(scenario) == ([None], "TimeoutError()")


def test_a_store_that_keeps_failing_is_left_alone_until_it_is_tried_again(run):
    async def scenario(store, folder):
        (reader,) = folder.readers
        reader.error = OSError("gone")
        for _ in range(5):
            await ask(store)
        reads, state = reader.num_reads, store.breaker.state
        reader.error = None
        await asyncio.sleep(0.06)  # the breaker's open_seconds
        return reads, state, (await ask(store)).ages, store.breaker.state

    assert run(scenario, failures=2) == (2, BreakerState.OPEN, [0.0], BreakerState.CLOSED)


def test_a_store_that_was_rebuilt_is_read_from_then_on_and_the_one_before_let_go(run):
    async def scenario(store, folder):
        await ask(store)
        folder.rebuild("amount_log")
        meanwhile = await ask(store)
        after = await ask_until_it_answers(store)
        return meanwhile.ages, after.states.customers, [r.is_closed for r in folder.readers]

    meanwhile, customers, closed = run(scenario)
    assert meanwhile != [0.0]  # the store it knows is never read once it was replaced
    assert customers == [b"2"]
    assert closed == [True, False]


def test_a_store_that_is_away_for_a_while_is_found_when_it_is_back(run):
    async def scenario(store, folder):
        folder.stamp_file.unlink()
        for _ in range(3):
            await ask(store)
            await asyncio.sleep(0.01)
        error = store.error
        folder.rebuild("amount_log")
        return error, (await ask_until_it_answers(store)).states.customers

    error, customers = run(scenario)
    assert "no feature store" in error
    assert customers == [b"2"]


def test_a_store_rebuilt_with_other_features_is_never_read_nor_is_the_one_before(run):
    async def scenario(store, folder):
        folder.rebuild("amount_log", "V1")
        for _ in range(5):
            assert (await ask(store)).ages == [None]
            await asyncio.sleep(0.01)
        error, reads = store.error, [reader.num_reads for reader in folder.readers]
        folder.rebuild("amount_log")
        return error, set(reads), (await ask_until_it_answers(store)).states.customers

    error, reads, customers = run(scenario)
    assert OTHER_FEATURES in error
    assert reads == {0}
    assert customers == [b"3"]


def test_a_store_that_was_replaced_is_not_opened_at_every_read(run, monkeypatch):
    async def scenario(store, folder):
        monkeypatch.setattr(online_store, "REOPEN_SECONDS", 3600.0)
        folder.rebuild("amount_log")
        for _ in range(3):
            await ask(store)
            await asyncio.sleep(0.01)
        return len(folder.readers)

    assert run(scenario) == 1


def test_without_a_store_there_is_no_service(tmp_path):
    folder = FakeFolder(tmp_path / "features.json")
    folder.stamp_file.unlink()
    with pytest.raises(FileNotFoundError):
        OnlineStore(
            open_store=folder.open,
            stamp_file=folder.stamp_file,
            max_age_seconds=1.0,
            breaker=BreakerLimits(),
        )
