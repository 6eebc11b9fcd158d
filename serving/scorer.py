"""Transactions become scores, decisions and prediction records, many requests in one batch.

Requests that arrive while a batch is under way are scored together by the next: one round trip to
the online store, one call of the compiled features, one of the model, one record. The busier the
service, the larger its batches and the less a request costs. Both lanes use the same scorer.

Invariants: every row of one call is answered by one model, whatever is promoted meanwhile. A store
that fails costs history, never the answer, and the answer says so. More waiting rows than
``max_waiting_rows`` are refused at once, so that those accepted are answered in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np

from features.fraud_selection import FeatureSet
from features.row_requests import RowRequests, build_row_requests
from features.row_requests import Transaction as FeatureTransaction
from features.row_states import compute_features
from serving.lane_metrics import LaneMetrics
from serving.online_store import OnlineStore, StoreAnswer
from serving.prediction_log import Decision, ScoredBatch
from serving.row_matrix import NEEDS_HISTORY, FeatureLayout, FeatureRows, HasColumns, ModelInput
from serving.score_messages import Answer, Reason, make_probe

if TYPE_CHECKING:
    from training.artefact import Artefact
    from training.encoding import Floats

logger = logging.getLogger("bentoml.throughline")

STALE = "online store unavailable: last known history"
REQUEST_ONLY = "online store unavailable: model of the request alone"
RULE = "online store unavailable: rule on the amount"
NUM_REASONS = 5
BATCH_ROWS = 256
"""Rows scored in one go at most: about 5 ms during which nothing else is done."""


class NoModelError(RuntimeError):
    """No champion has been loaded yet."""


class OverloadedError(RuntimeError):
    """More rows wait than can be answered in time."""


class Scorable(FeatureTransaction, HasColumns, Protocol):
    """A transaction of either lane."""

    @property
    def transaction_id(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Champion:
    """A loaded model, the registry's name for it, and how it reads features."""

    version: str
    artefact: Artefact
    model_input: ModelInput


class ScoreCounts(NamedTuple):
    """Transactions answered since the process started, and how many of them without the store."""

    scored: int
    degraded: int


class _Waiting(NamedTuple):
    """A request that the next batch answers."""

    transactions: Sequence[Scorable]
    future: asyncio.Future[list[Answer]]
    received: float


class Scorer:
    """Score transactions with the current champion; used in one event loop.

    Args:
        store: The online store.
        feature_set: The features the store holds.
        record: Takes each scored batch for the prediction log; must not block.
        metrics: Told what happens.
        max_waiting_rows: Accepted and not yet answered, at most.
    """

    def __init__(
        self,
        *,
        store: OnlineStore,
        feature_set: FeatureSet,
        record: Callable[[ScoredBatch], None],
        metrics: LaneMetrics,
        max_waiting_rows: int,
    ) -> None:
        self.store = store
        self.feature_set = feature_set
        self.metrics = metrics
        self.max_waiting_rows = max_waiting_rows
        self.champion: Champion | None = None
        self.versions_served: list[str] = []
        self.counts = ScoreCounts(0, 0)
        self._record = record
        self._layout = FeatureLayout(feature_set)
        self._waiting: list[_Waiting] = []
        self._num_waiting_rows = 0
        self._is_flush_due = False
        self._batches: set[asyncio.Task[None]] = set()
        self._has_answered = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def replace_champion(self, version: str, artefact: Artefact) -> None:
        """Let another model answer every batch that starts from now on.

        Raises:
            ValueError: If it needs features that the store lacks.
        """
        champion = Champion(version, artefact, ModelInput(artefact.spec.encoding, self.feature_set))
        self.versions_served = [*self.versions_served, version]
        self.champion = champion

    async def check_ready(self) -> bool:
        """Tell whether a model is loaded and the store has answered, asking it until it has.

        A store that fails later does not make the scorer unready: it still answers, degraded.
        """
        if self.champion is not None and not self._has_answered:
            probe = [make_probe()]
            requests = build_row_requests(probe)
            found = await self.store.read(requests)
            rows, _ = self._compute(found, requests, probe)
            self.champion.artefact.predict_matrix(self.champion.model_input.encode(rows))
            self._has_answered = found.ages == [0.0]
        return self.champion is not None and self._has_answered

    def submit(self, transactions: Sequence[Scorable]) -> asyncio.Future[list[Answer]]:
        """Have transactions scored as of their own ``event_time`` by the next batch.

        Args:
            transactions: At most ``BATCH_ROWS``; see ``score`` for more.

        Returns:
            The answers to be, one per transaction in the same order.

        Raises:
            NoModelError: If there is no champion yet.
            OverloadedError: If too many rows wait already.
        """
        rows = len(transactions)
        self.check_accepts(rows)
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[list[Answer]] = loop.create_future()
        self._waiting.append(_Waiting(transactions, future, time.perf_counter()))
        self._num_waiting_rows += rows
        if not self._is_flush_due and not self._batches:
            self._is_flush_due = True
            loop.call_soon(self._flush)
        return future

    async def score(
        self, transactions: Sequence[Scorable], *, explain: bool = False
    ) -> list[Answer]:
        """Score any number of transactions with one model; see ``submit``.

        Args:
            transactions: In any order.
            explain: Whether to say which features moved each score most.
        """
        if len(transactions) <= BATCH_ROWS and not explain:
            return await self.submit(transactions)
        champion = self.check_accepts(len(transactions))
        self._num_waiting_rows += len(transactions)
        answers: list[Answer] = []
        try:
            for start in range(0, len(transactions), BATCH_ROWS):
                part = transactions[start : start + BATCH_ROWS]
                received = np.full(len(part), time.perf_counter())
                answers += await self._score(part, champion, received, explain=explain)
        finally:
            self._num_waiting_rows -= len(transactions)
        return answers

    def check_accepts(self, rows: int) -> Champion:
        """Find out, at next to no cost, whether transactions would be taken; return who scores.

        Raises:
            NoModelError: If there is no champion yet.
            OverloadedError: If too many rows wait already.
        """
        if self.champion is None:
            raise NoModelError("no model has been loaded yet")
        if self._num_waiting_rows and self._num_waiting_rows + rows > self.max_waiting_rows:
            raise OverloadedError(f"{self._num_waiting_rows} transactions wait already")
        return self.champion

    async def drain(self) -> None:
        """Answer what has been accepted."""
        while self._batches or self._waiting:
            await asyncio.sleep(0.005)

    def _flush(self) -> None:
        """Start batches of all that waits."""
        self._is_flush_due = False
        waiting, self._waiting = self._waiting, []
        for group in _group(waiting):
            task = asyncio.get_running_loop().create_task(self._answer(group))
            self._batches.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        """Start on what has gathered while the last batch was under way."""
        self._batches.discard(task)
        if self._waiting and not self._batches:
            self._flush()

    async def _answer(self, group: Sequence[_Waiting]) -> None:
        """Score one batch and hand each request its part."""
        transactions = [row for waiting in group for row in waiting.transactions]
        received = np.array([w.received for w in group for _ in w.transactions])
        assert self.champion is not None
        try:
            answers = await self._score(transactions, self.champion, received)
        except Exception as error:
            logger.exception("a batch of %d transactions failed", len(transactions))
            for waiting in group:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
        else:
            start = 0
            for waiting in group:
                end = start + len(waiting.transactions)
                if not waiting.future.done():  # the client may have gone
                    waiting.future.set_result(answers[start:end])
                start = end
        finally:
            self._num_waiting_rows -= len(transactions)

    async def _score(
        self,
        transactions: Sequence[Scorable],
        champion: Champion,
        received: Floats,
        *,
        explain: bool = False,
    ) -> list[Answer]:
        """Score a batch: store, features, model, decision, record."""
        clock = time.perf_counter
        requests = build_row_requests(transactions)
        started = clock()
        found = await self.store.read(requests)
        has_states = clock()
        rows, degraded = self._compute(found, requests, transactions)
        has_features = clock()
        matrix = champion.model_input.encode(rows)
        scores, decisions = _predict(champion.artefact, matrix, requests, degraded)
        has_scores = clock()
        batch = ScoredBatch(
            prediction_time_us=time.time_ns() // 1000,
            model_version=champion.version,
            arm="champion",
            transaction_ids=[row.transaction_id for row in transactions],
            event_times_us=requests.integers[:, 0],
            amounts=requests.floats[:, 0],
            features=rows.numbers,
            categories=rows.categories,
            scores=scores,
            decisions=decisions,
            degraded_reasons=degraded,
            latency_ms=(has_scores - received) * 1e3,
        )
        self._record(batch)
        recorded = clock()
        metrics = self.metrics
        metrics.observe_batch(len(transactions))
        metrics.observe_stage("store", has_states - started)
        metrics.observe_stage("features", has_features - has_states)
        metrics.observe_stage("model", has_scores - has_features)
        metrics.observe_stage("record", recorded - has_scores)
        self._count(found, degraded)
        reasons = champion.artefact.explain_matrix(matrix, top=NUM_REASONS) if explain else None
        return _make_answers(batch, reasons)

    def _compute(
        self, found: StoreAnswer, requests: RowRequests, transactions: Sequence[Scorable]
    ) -> tuple[FeatureRows, list[str | None]]:
        """Compute features; without history, those that need none."""
        computed, _ = compute_features(found.states, requests)
        degraded: list[str | None] = [None] * len(transactions)
        if not any(age is None or age for age in found.ages):
            return self._layout.arrange(computed, transactions), degraded
        for row, age in enumerate(found.ages):
            if age is None:
                computed[row, NEEDS_HISTORY] = np.nan
                degraded[row] = REQUEST_ONLY
            elif age:
                degraded[row] = STALE
        return self._layout.arrange(computed, transactions), degraded

    def _count(self, found: StoreAnswer, degraded: Sequence[str | None]) -> None:
        num_degraded = len(degraded) - degraded.count(None)
        scored, before = self.counts
        self.counts = ScoreCounts(scored + len(degraded), before + num_degraded)
        if num_degraded:
            for reason in (STALE, REQUEST_ONLY, RULE):
                self.metrics.count_degraded(reason, degraded.count(reason))
            self.metrics.observe_feature_ages([age for age in found.ages if age])


def _predict(
    artefact: Artefact, matrix: Floats, requests: RowRequests, degraded: list[str | None]
) -> tuple[Floats, list[Decision]]:
    """Score and decide; rows without history by the model made for them, or the rule."""
    amounts = requests.floats[:, 0]
    scores = artefact.predict_matrix(matrix)
    decisions = artefact.decide(scores, amounts).tolist()
    if REQUEST_ONLY in degraded:
        without = np.array([reason == REQUEST_ONLY for reason in degraded])
        reason, these, say = _predict_without_history(artefact, matrix[without], amounts[without])
        scores[without] = these
        for row, decision in zip(np.flatnonzero(without).tolist(), say, strict=True):
            decisions[row], degraded[row] = decision, reason
    assert np.all((scores >= 0) & (scores <= 1)), "a model gave something that is no probability"
    return scores, decisions


def _predict_without_history(
    artefact: Artefact, matrix: Floats, amounts: Floats
) -> tuple[str, Floats, list[Decision]]:
    """Score rows whose history is not known.

    Returns:
        What answered, the scores and the decisions.
    """
    if artefact.request_model is not None:
        scores = artefact.predict_request(matrix)
        return REQUEST_ONLY, scores, artefact.decide_request(scores, amounts).tolist()
    if artefact.rule is not None:
        return RULE, artefact.rule.scores(amounts), artefact.rule.decide(amounts).tolist()
    scores = artefact.predict_matrix(matrix)  # an artefact of before: the model with gaps
    return REQUEST_ONLY, scores, artefact.decide(scores, amounts).tolist()


def _group(waiting: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Split what waits into batches of at most ``BATCH_ROWS`` rows, never a request in two."""
    group: list[_Waiting] = []
    rows = 0
    for request in waiting:
        if group and rows + len(request.transactions) > BATCH_ROWS:
            yield group
            group, rows = [], 0
        group.append(request)
        rows += len(request.transactions)
    yield group


def _make_answers(
    batch: ScoredBatch, reasons: list[list[tuple[str, float]]] | None
) -> list[Answer]:
    columns = (batch.transaction_ids, batch.scores.tolist(), batch.decisions)
    version = batch.model_version
    answers = [
        Answer(transaction_id, score, decision, version, degraded_reason)
        for transaction_id, score, decision, degraded_reason in zip(
            *columns, batch.degraded_reasons, strict=True
        )
    ]
    if reasons is None:
        return answers
    return [
        msgspec.structs.replace(answer, reasons=[Reason(name, value) for name, value in row])
        for answer, row in zip(answers, reasons, strict=True)
    ]


def list_extra_columns(feature_set: FeatureSet, *, contract: tuple[str, ...]) -> dict[str, bool]:
    """Name the features that are columns of the user's own, and whether they hold strings."""
    return {
        name: name in feature_set.categorical
        for name in feature_set.names
        if name not in feature_set.computed and name not in contract
    }
