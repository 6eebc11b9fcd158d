"""A challenger beside the champion: whom it answers, what is recorded, and what its faults cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, values

from serving.decisions import REQUEST_ONLY, Exploration
from serving.lane_metrics import LaneMetrics
from serving.prediction_log import ScoredBatch
from serving.score_messages import Answer
from serving.scorer import BATCH_ROWS, Scorer
from serving.shadow import MAX_PENDING_ROWS
from tests.unit.scorer_world import FakeArtefact, FakeStore, make_scorer, make_transactions
from training.rollout import Rollout

CUSTOMERS = [f"c{number}" for number in range(40)]
CANARY = Rollout("8", "canary", 0.25)
SHADOW = Rollout("8", "shadow", 0.0)
CHALLENGED = [customer for customer in CUSTOMERS if CANARY.has(customer)]


@pytest.fixture(scope="module", autouse=True)
def _own_values():
    """Keep values in this process and test: Feast, once imported, has all registries share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.MutexValue)
        yield


class World:
    """A scorer with champion 7 and challenger 8, whose scores are 0.1 and 0.6 for each customer."""

    def __init__(self, rollout: Rollout | None = None, **options: Any) -> None:
        self.store = FakeStore(dict.fromkeys(CUSTOMERS, 1))
        self.records: list[ScoredBatch] = []
        self.scorer: Scorer = make_scorer(self.store, self.records, **options)
        self.registry = CollectorRegistry()
        self.scorer.metrics = LaneMetrics(registry=self.registry)
        self.challenger = FakeArtefact(offset=0.5)
        self.scorer.lineup.replace_champion("7", FakeArtefact())  # type: ignore[arg-type]
        if rollout is not None:
            self.scorer.lineup.start_rollout(rollout, self.challenger)  # type: ignore[arg-type]

    def score(self, *customers: str, calls: int = 1, explain: bool = False) -> list[Answer]:
        """Answer calls one after another, and let the shadow finish."""

        async def play() -> list[Answer]:
            answers = []
            for _ in range(calls):
                rows = make_transactions(*customers)
                answers += await self.scorer.score(rows, explain=explain)
                await asyncio.sleep(0)
            self.wait_for_shadow()
            return answers

        return asyncio.run(play())

    def wait_for_shadow(self) -> None:
        deadline = time.monotonic() + 20
        while self.scorer.shadow.counts.pending and time.monotonic() < deadline:
            time.sleep(0.001)

    def value(self, name: str, **labels: str) -> float | None:
        self.scorer.metrics.publish()
        return self.registry.get_sample_value(f"throughline_{name}", labels)


def test_the_customers_of_a_canary_are_answered_by_the_challenger_and_the_rest_by_the_champion():
    answers = World(CANARY).score(*CUSTOMERS)
    assert 0 < len(CHALLENGED) < len(CUSTOMERS)
    assert [answer.transaction_id for answer in answers] == [f"t{i}" for i in range(40)]
    expected = [("8", 0.6) if name in CHALLENGED else ("7", 0.1) for name in CUSTOMERS]
    assert [(answer.model_version, answer.score) for answer in answers] == expected


def test_each_record_of_a_canary_names_the_model_that_answered_and_its_own_features():
    world = World(CANARY)
    world.store.counts = {customer: number % 4 for number, customer in enumerate(CUSTOMERS)}
    answers = {answer.transaction_id: answer for answer in world.score(*CUSTOMERS)}
    arms = {}
    for batch in world.records:
        for row, transaction_id in enumerate(batch.transaction_ids):
            answer = answers.pop(transaction_id)
            number = int(transaction_id[1:])
            arms[CUSTOMERS[number]] = (batch.arm, batch.model_version)
            assert (answer.score, answer.decision) == (batch.scores[row], batch.decisions[row])
            assert answer.model_version == batch.model_version
            assert batch.features[row, 1] == number % 4
    assert answers == {}
    assert {arms[customer] for customer in CHALLENGED} == {("challenger", "8")}
    assert {arms[name] for name in CUSTOMERS if name not in CHALLENGED} == {("champion", "7")}


@pytest.mark.parametrize("explain", [False, True])
def test_a_customers_rows_of_one_call_are_answered_by_one_model_while_shares_grow(explain):
    world = World(CANARY)
    rows = CUSTOMERS * (2 * BATCH_ROWS // len(CUSTOMERS) + 1)

    async def play():
        task = asyncio.create_task(world.scorer.score(make_transactions(*rows), explain=explain))
        while not task.done():
            await asyncio.sleep(0)
            if world.store.asked:
                world.scorer.lineup.move_rollout(Rollout("8", "canary", 0.75))
        return await task

    answered = set(zip(rows, (a.model_version for a in asyncio.run(play())), strict=True))
    assert answered == {(name, "8" if name in CHALLENGED else "7") for name in CUSTOMERS}


def test_reasons_are_those_of_the_model_that_answered():
    world = World(CANARY)
    world.challenger.explain_matrix = lambda matrix, **_: [[("V1", 1.0)]] * len(matrix)  # type: ignore[method-assign]
    answers = world.score(*CUSTOMERS, explain=True)
    features = {answer.model_version: answer.reasons[0].feature for answer in answers}
    assert features == {"7": "customer_tx_count_1h", "8": "V1"}


def test_a_challenger_that_raises_costs_nobody_an_answer_and_is_counted_and_logged_once(caplog):
    world = World(CANARY)
    world.challenger.error = FloatingPointError("broken")
    answers = world.score(*CUSTOMERS, calls=3)
    assert {(answer.model_version, answer.score) for answer in answers} == {("7", 0.1)}
    assert {batch.arm for batch in world.records} == {"champion"}
    assert [len(batch.transaction_ids) for batch in world.records] == [40, 40, 40]
    assert world.value("challenger_failures_total") == 3
    assert len([r for r in caplog.records if "model 8 failed" in r.getMessage()]) == 1


def test_a_challenger_whose_scores_are_no_probabilities_costs_nobody_an_answer():
    world = World(CANARY)
    world.challenger.predict_matrix = lambda matrix: np.full(len(matrix), np.nan)  # type: ignore[method-assign]
    assert {answer.model_version for answer in world.score(*CUSTOMERS)} == {"7"}


def test_a_canarys_rows_without_history_are_answered_by_the_challengers_own_request_model():
    world = World(CANARY)
    world.challenger.predict_request = lambda matrix: np.full(len(matrix), 0.75)  # type: ignore[method-assign]
    world.store.age = None
    answers = world.score(*CUSTOMERS)
    assert {answer.degraded_reason for answer in answers} == {REQUEST_ONLY}
    assert {(answer.model_version, answer.score) for answer in answers} == {
        ("7", 0.25),
        ("8", 0.75),
    }
    assert world.scorer.counts == (40, 40)


def test_a_record_of_either_arm_leaves_the_time_of_the_other_out():
    world = World(CANARY)
    predict = world.challenger.predict_matrix

    def predict_slowly(matrix):
        time.sleep(0.1)
        return predict(matrix)

    world.challenger.predict_matrix = predict_slowly  # type: ignore[method-assign]
    world.score(*CUSTOMERS)
    latencies = {batch.arm: batch.latency_ms.max() for batch in world.records}
    assert latencies["champion"] < 100 <= latencies["challenger"]


def test_rows_are_counted_by_arm():
    world = World(CANARY)
    world.score(*CUSTOMERS)
    assert world.value("rows_total", arm="challenger") == len(CHALLENGED)
    assert world.value("rows_total", arm="champion") == len(CUSTOMERS) - len(CHALLENGED)


def test_in_the_shadow_the_champion_answers_all_and_both_are_recorded():
    world = World(SHADOW)
    answers = world.score("c0", "c1")
    assert {(answer.model_version, answer.score) for answer in answers} == {("7", 0.1)}
    champion, shadow = world.records
    assert (champion.arm, champion.model_version) == ("champion", "7")
    assert (shadow.arm, shadow.model_version) == ("shadow", "8")
    assert shadow.transaction_ids == champion.transaction_ids == ["t0", "t1"]
    assert shadow.scores.tolist() == [0.6, 0.6]
    assert shadow.decisions == ["decline", "decline"]
    assert shadow.features.tolist() == champion.features.tolist()
    assert world.scorer.shadow.counts == (2, 0, 0, 0)


def test_the_shadow_scores_only_once_the_answers_have_been_handed_out():
    events: list[str] = []
    world = World(SHADOW)
    world.scorer.shadow.submit = lambda *_: events.append("shadow")  # type: ignore[method-assign]

    async def ask():
        await world.scorer.submit(make_transactions("c0"))
        events.append("answered")

    async def play():
        await asyncio.gather(ask(), ask())
        await asyncio.sleep(0)

    asyncio.run(play())
    assert events == ["answered", "answered", "shadow"]


def test_a_slow_challenger_in_the_shadow_makes_no_request_wait():
    world = World(SHADOW)
    predict = world.challenger.predict_matrix

    def predict_slowly(matrix):
        time.sleep(2.0)
        return predict(matrix)

    world.challenger.predict_matrix = predict_slowly  # type: ignore[method-assign]

    async def play():
        started = time.perf_counter()
        for _ in range(3):
            await world.scorer.score(make_transactions("c0"))
        await asyncio.sleep(0)
        return time.perf_counter() - started

    assert asyncio.run(play()) < 1.0
    assert world.scorer.shadow.counts.pending == 3
    world.wait_for_shadow()
    assert [batch.arm for batch in world.records].count("shadow") == 3


def test_rows_without_history_are_not_shadowed():
    world = World(SHADOW)
    world.store.age = None
    world.score("c0", "c1")
    assert [batch.arm for batch in world.records] == ["champion"]
    assert world.scorer.shadow.counts == (0, 0, 0, 0)


def test_a_challenger_that_raises_in_the_shadow_is_counted_and_logged_once(caplog):
    world = World(SHADOW)
    world.challenger.error = FloatingPointError("broken")
    assert len(world.score("c0", "c1", calls=3)) == 6
    assert [batch.arm for batch in world.records] == ["champion"] * 3
    assert world.scorer.shadow.counts == (0, 6, 0, 0)
    logged = [r for r in caplog.records if "model 8 failed in the shadow" in r.getMessage()]
    assert len(logged) == 1


def test_what_the_shadow_cannot_keep_up_with_is_dropped_and_counted():
    world = World(SHADOW)
    rows = [name for name in CUSTOMERS for _ in range(MAX_PENDING_ROWS // len(CUSTOMERS) + 1)]
    world.challenger.predict_matrix = lambda matrix: time.sleep(0.05) or np.zeros(len(matrix))  # type: ignore[method-assign]
    assert len(world.score(*rows)) == len(rows)
    scored, failed, dropped, pending = world.scorer.shadow.counts
    assert (scored + dropped, failed, pending) == (len(rows), 0, 0)
    assert dropped > 0


def test_the_shadow_says_with_which_probability_the_served_decision_lets_the_outcome_be_seen():
    """The challenger would decline all; the champion approves, so every outcome will be seen."""
    world = World(SHADOW)
    world.score("c0", "c1")
    champion, shadow = world.records
    assert champion.outcome_shares is not None
    assert champion.outcome_shares.tolist() == [1.0, 1.0]
    assert shadow.decisions == ["decline", "decline"]
    assert shadow.outcome_shares is not None
    assert shadow.outcome_shares.tolist() == [1.0, 1.0]


def test_a_rollout_that_ends_takes_effect_with_the_next_batch_and_changes_none_under_way():
    world = World(CANARY)
    name = CHALLENGED[0]

    async def play():
        world.store.may_go.clear()
        future = world.scorer.submit(make_transactions(name))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.scorer.lineup.end_rollout()
        world.store.may_go.set()
        return await future + await world.scorer.score(make_transactions(name))

    assert [answer.model_version for answer in asyncio.run(play())] == ["8", "7"]


def test_promoting_the_challenger_ends_its_rollout_in_the_same_step():
    world = World(CANARY)
    world.scorer.lineup.replace_champion("8", world.challenger)  # type: ignore[arg-type]
    assert world.scorer.lineup.rollout is None
    assert {answer.model_version for answer in world.score(*CUSTOMERS)} == {"8"}
    assert {batch.arm for batch in world.records} == {"champion"}


def test_another_champion_leaves_the_rollout_as_it_is():
    world = World(CANARY)
    world.scorer.lineup.replace_champion("9", FakeArtefact(offset=0.25))  # type: ignore[arg-type]
    assert {answer.model_version for answer in world.score(*CUSTOMERS)} == {"8", "9"}


def test_exploration_lets_through_what_either_arm_would_decline():
    world = World(CANARY, exploration=Exploration(1.0, b"key"))
    answers = world.score(*CUSTOMERS)
    by_version = {answer.model_version: answer.decision for answer in answers}
    assert by_version == {"7": "approve", "8": "review"}
    shares = {batch.arm: set(batch.outcome_shares.tolist()) for batch in world.records}
    assert shares == {"champion": {1.0}, "challenger": {1.0}}
