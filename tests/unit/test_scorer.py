"""Requests become batches, and every request gets its own answers of the models of its start."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.fraud_selection import FeatureSet
from serving.decisions import REQUEST_ONLY, RULE, STALE
from serving.prediction_log import ScoredBatch
from serving.row_matrix import list_extra_columns
from serving.scorer import BATCH_ROWS, NoModelError, OverloadedError
from tests.unit.scorer_world import (
    ENCODING,
    FEATURES,
    FakeArtefact,
    FakeStore,
    make_scorer,
    make_transactions,
    start_requests,
)
from training.amount_rule import AmountRule
from training.encoding import Encoding


def score(store, *customers, artefact=None, records=None, explain=False):
    """Answer one call with a scorer of its own; return the answers and the scorer."""
    scorer = make_scorer(store, records)
    scorer.lineup.replace_champion("7", artefact or FakeArtefact())
    return asyncio.run(scorer.score(make_transactions(*customers), explain=explain)), scorer


def test_answers_come_in_the_order_of_the_transactions_with_score_decision_and_version():
    answers, _ = score(FakeStore({"ann": 2, "bob": 8}), "bob", "ann")
    assert [answer.transaction_id for answer in answers] == ["t0", "t1"]
    assert [answer.score for answer in answers] == [0.8, 0.2]
    assert [answer.decision for answer in answers] == ["decline", "approve"]
    assert {answer.model_version for answer in answers} == {"7"}
    assert {answer.degraded_reason for answer in answers} == {None}


def test_without_a_model_nothing_is_answered_or_recorded():
    records: list[ScoredBatch] = []
    with pytest.raises(NoModelError):
        asyncio.run(make_scorer(FakeStore({}), records).score(make_transactions("ann")))
    assert records == []


def test_a_model_that_reads_features_the_store_lacks_does_not_become_champion():
    scorer = make_scorer(FakeStore({}))
    artefact = FakeArtefact()
    artefact.spec.encoding = Encoding((*FEATURES.names, "V2"), ENCODING.vocabularies)
    with pytest.raises(ValueError, match="the store lacks: V2"):
        scorer.lineup.replace_champion("8", artefact)
    assert scorer.lineup.champion is None
    assert scorer.lineup.versions_served == []


def test_without_history_the_model_of_the_request_answers_and_the_answer_says_so():
    records: list[ScoredBatch] = []
    (answer,), scorer = score(FakeStore({"ann": 8}, age=None), "ann", records=records)
    assert (answer.score, answer.decision, answer.degraded_reason) == (0.25, "review", REQUEST_ONLY)
    (logged,) = records[0].features.tolist()
    assert logged == pytest.approx([np.log(101.0), np.nan, 0.25], nan_ok=True)
    assert records[0].categories == [["credit"]]
    assert records[0].degraded_reasons == [REQUEST_ONLY]
    assert scorer.counts == (1, 1)


def test_without_history_or_a_model_of_the_request_the_rule_on_the_amount_answers():
    rule = AmountRule(50.0, "review", share_below=0.01, share_above=0.125)
    artefact = FakeArtefact(request_model=None, rule=rule)
    (answer,), _ = score(FakeStore({}, age=None), "ann", artefact=artefact)
    assert (answer.score, answer.decision, answer.degraded_reason) == (0.125, "review", RULE)


def test_a_model_without_any_fallback_answers_itself_without_history():
    artefact = FakeArtefact(request_model=None, offset=0.125)
    (answer,), _ = score(FakeStore({"ann": 8}, age=None), "ann", artefact=artefact)
    assert (answer.score, answer.degraded_reason) == (0.125, REQUEST_ONLY)


def test_last_known_history_is_used_in_full_and_the_answer_says_so():
    (answer,), scorer = score(FakeStore({"ann": 8}, age=2.5), "ann")
    assert (answer.score, answer.degraded_reason) == (0.8, STALE)
    assert scorer.counts == (1, 1)


def test_a_store_that_comes_back_ends_the_degradation():
    store = FakeStore({"ann": 8}, age=None)
    scorer = make_scorer(store)
    scorer.lineup.replace_champion("7", FakeArtefact())

    async def ask_twice():
        first = await scorer.score(make_transactions("ann"))
        store.age = 0.0
        return first + await scorer.score(make_transactions("ann"))

    before, after = asyncio.run(ask_twice())
    assert before.degraded_reason == REQUEST_ONLY
    assert (after.score, after.degraded_reason) == (0.8, None)


def test_reasons_are_given_only_when_asked_for():
    store = FakeStore({"ann": 1})
    (plain,), _ = score(store, "ann")
    (explained,), _ = score(store, "ann", explain=True)
    assert plain.reasons is None
    assert [(r.feature, r.contribution) for r in explained.reasons] == [
        ("customer_tx_count_1h", 1.0)
    ]


def test_each_batch_is_recorded_once_with_what_was_answered():
    records: list[ScoredBatch] = []
    answers, _ = score(FakeStore({"ann": 2, "bob": 8}), "ann", "bob", records=records)
    (batch,) = records
    assert batch.transaction_ids == [answer.transaction_id for answer in answers]
    assert batch.scores.tolist() == [answer.score for answer in answers]
    assert batch.decisions == [answer.decision for answer in answers]
    assert batch.features[:, FEATURES.numeric.index("customer_tx_count_1h")].tolist() == [2.0, 8.0]
    assert batch.categories == [["credit", "credit"]]
    assert (batch.model_version, batch.arm) == ("7", "champion")
    assert (batch.latency_ms > 0).all()


def run(scenario, *, counts=None, max_waiting_rows=10_000, records=None):
    """Run ``scenario(scorer, store)`` with a champion in place."""

    async def play():
        store = FakeStore({"ann": 1} if counts is None else counts)
        scorer = make_scorer(store, records, max_waiting_rows=max_waiting_rows)
        scorer.lineup.replace_champion("7", FakeArtefact())
        return await asyncio.wait_for(scenario(scorer, store), 20)

    return asyncio.run(play())


def test_requests_of_one_tick_are_one_batch_and_those_that_come_meanwhile_the_next():
    async def scenario(scorer, store):
        store.may_go.clear()
        futures = await start_requests(scorer, [1, 1, 1])
        futures += await start_requests(scorer, [1])
        futures += await start_requests(scorer, [1])
        assert len(store.asked) == 1
        store.may_go.set()
        await asyncio.gather(*futures)
        return [len(batch) for batch in store.asked]

    assert run(scenario) == [3, 2]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, BATCH_ROWS), min_size=1, max_size=12), st.integers(0, 12))
def test_every_request_gets_its_own_answers_whatever_the_sizes(sizes, num_first):
    async def scenario(scorer, store):
        requests = [
            make_transactions(*[f"c{request}"] * size) for request, size in enumerate(sizes)
        ]
        futures = [scorer.submit(rows) for rows in requests[:num_first]]
        await asyncio.sleep(0)
        futures += [scorer.submit(rows) for rows in requests[num_first:]]
        return await asyncio.gather(*futures), store.asked

    counts = {f"c{request}": request % 10 for request in range(12)}
    answers, asked = run(scenario, counts=counts)
    for request, size in enumerate(sizes):
        assert [a.transaction_id for a in answers[request]] == [f"t{i}" for i in range(size)]
        assert {a.score for a in answers[request]} == {request % 10 / 10}
    assert max(map(len, asked)) <= BATCH_ROWS
    for request, size in enumerate(sizes):  # a request is never in two batches
        assert size in [batch.count(f"c{request}") for batch in asked]


def test_a_promotion_in_the_middle_of_a_batch_changes_no_answer_of_it():
    async def scenario(scorer, store):
        store.may_go.clear()
        (future,) = await start_requests(scorer, [2])
        scorer.lineup.replace_champion("8", FakeArtefact(offset=0.5))
        store.may_go.set()
        return (
            await future,
            await scorer.score(make_transactions("ann")),
            scorer.lineup.versions_served,
        )

    before, after, served = run(scenario)
    assert {(answer.model_version, answer.score) for answer in before} == {("7", 0.1)}
    assert {(answer.model_version, answer.score) for answer in after} == {("8", 0.6)}
    assert served == ["7", "8"]


@pytest.mark.parametrize("explain", [False, True])
def test_a_call_of_many_batches_is_answered_by_one_model_while_champions_swap(explain):
    async def scenario(scorer, store):
        rows = make_transactions(*["ann"] * (3 * BATCH_ROWS + 1))
        task = asyncio.create_task(scorer.score(rows, explain=explain))
        while len(store.asked) < 4:
            await asyncio.sleep(0)  # the task begins before the first promotion
            scorer.lineup.replace_champion("8", FakeArtefact(offset=0.5))
        return await task, [len(batch) for batch in store.asked]

    answers, sizes = run(scenario)
    assert {(answer.model_version, answer.score) for answer in answers} == {("7", 0.1)}
    assert [answer.transaction_id for answer in answers] == [f"t{i}" for i in range(len(answers))]
    assert sizes == [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 1]


def test_more_waiting_rows_than_allowed_are_refused_at_once_until_some_are_answered():
    async def scenario(scorer, store):
        store.may_go.clear()
        futures = await start_requests(scorer, [4, 4])
        with pytest.raises(OverloadedError, match="8 transactions wait already"):
            scorer.submit(make_transactions("ann", "ann", "ann"))
        futures += await start_requests(scorer, [2])
        store.may_go.set()
        await asyncio.gather(*futures)
        return await scorer.score(make_transactions("ann", "ann", "ann"))

    assert len(run(scenario, max_waiting_rows=10)) == 3


def test_a_request_larger_than_the_limit_is_taken_when_nothing_waits():
    async def scenario(scorer, _):
        return await scorer.score(make_transactions(*["ann"] * 20))

    assert len(run(scenario, max_waiting_rows=10)) == 20


@pytest.mark.parametrize("rows", [1, BATCH_ROWS + 1])
def test_draining_waits_for_all_that_was_accepted(rows):
    async def scenario(scorer, store):
        store.may_go.clear()
        asked = asyncio.create_task(scorer.score(make_transactions(*["ann"] * rows)))
        await asyncio.sleep(0)
        draining = asyncio.create_task(scorer.drain())
        await asyncio.sleep(0.02)
        was_done = draining.done()
        store.may_go.set()
        await draining
        await asyncio.sleep(0)
        return was_done, asked.done()

    assert run(scenario) == (False, True)


def test_a_caller_who_leaves_costs_the_others_nothing_and_frees_its_rows():
    async def scenario(scorer, store):
        store.may_go.clear()
        leaving, staying = await start_requests(scorer, [5, 1])
        leaving.cancel()
        store.may_go.set()
        answers = await staying
        await scorer.drain()
        return answers, len(await scorer.score(make_transactions(*["ann"] * 6)))

    answers, num_after = run(scenario, max_waiting_rows=6)
    assert [answer.score for answer in answers] == [0.1]
    assert num_after == 6


def test_a_batch_that_fails_fails_its_own_callers_only():
    async def scenario(scorer, _):
        scorer.lineup.replace_champion("8", FakeArtefact(error=FloatingPointError("broken")))
        failed = await asyncio.gather(
            scorer.score(make_transactions("ann")),
            scorer.score(make_transactions("ann")),
            return_exceptions=True,
        )
        scorer.lineup.replace_champion("9", FakeArtefact())
        return failed, await scorer.score(make_transactions("ann"))

    failed, after = run(scenario)
    assert [str(error) for error in failed] == ["broken", "broken"]
    assert [answer.score for answer in after] == [0.1]


def test_a_scorer_is_ready_once_a_model_is_loaded_and_the_store_has_answered():
    async def play():
        store = FakeStore({}, age=None)
        scorer = make_scorer(store)
        said = [await scorer.check_ready()]
        scorer.lineup.replace_champion("7", FakeArtefact())
        said.append(await scorer.check_ready())
        store.age = 0.0
        said.append(await scorer.check_ready())
        store.age = None
        said.append(await scorer.check_ready())
        return said

    assert asyncio.run(play()) == [False, False, True, True]


def test_readiness_stops_asking_the_store_once_it_has_answered():
    async def scenario(scorer, store):
        for _ in range(3):
            await scorer.check_ready()
        return len(store.asked)

    assert run(scenario) == 1


def test_extra_columns_are_the_features_that_are_neither_computed_nor_in_the_contract():
    features = FeatureSet(
        names=("amount_log", "V1", "card_type", "bank"),
        categorical=("card_type", "bank"),
        dropped={},
    )
    extra = list_extra_columns(features, contract=("amount", "card_type"))
    assert extra == {"V1": False, "bank": True}


class Receiver:
    """Takes answers at once, or raises."""

    def __init__(self, error=None):
        self.error, self.answers = error, None

    def done(self):
        return False

    def set_result(self, answers):
        if self.error is not None:
            raise self.error
        self.answers = answers

    def set_exception(self, error):
        raise error


def test_a_receiver_that_cannot_take_its_answer_costs_the_others_nothing():
    receivers = [Receiver(), Receiver(OSError("gone")), Receiver()]

    async def scenario(scorer, _):
        for receiver in receivers:
            scorer.submit_to(make_transactions("ann"), receiver, began=0.0)
        await scorer.drain()
        return await scorer.score(make_transactions("ann"))

    assert len(run(scenario)) == 1
    assert [r.answers and r.answers[0].score for r in receivers] == [0.1, None, 0.1]


def test_a_champion_on_a_device_is_asked_for_its_margins_there():
    asked = []

    async def margins(matrix):
        asked.append(matrix[:, 1].tolist())
        await asyncio.sleep(0)
        return np.log([0.25 / 0.75] * len(matrix))

    async def play():
        scorer = make_scorer(FakeStore({"ann": 1}), open_device=lambda _: margins)
        scorer.lineup.replace_champion("7", FakeArtefact(error=AssertionError("not on the CPU")))
        return await scorer.score(make_transactions("ann", "ann"))

    assert [answer.score for answer in asyncio.run(play())] == pytest.approx([0.25, 0.25])
    assert asked == [[1.0, 1.0]]


def test_a_device_that_fails_fails_the_batch_and_the_next_is_asked_again():
    errors = [RuntimeError("out of memory")]

    async def margins(matrix):
        if errors:
            raise errors.pop()
        return np.zeros(len(matrix))

    async def play():
        scorer = make_scorer(FakeStore({}), open_device=lambda _: margins)
        scorer.lineup.replace_champion("7", FakeArtefact())
        with pytest.raises(RuntimeError, match="out of memory"):
            await scorer.score(make_transactions("ann"))
        return await scorer.score(make_transactions("ann"))

    assert [answer.score for answer in asyncio.run(play())] == [0.5]
