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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np

from features.fraud_rows import UNREADABLE
from features.fraud_selection import FeatureSet
from features.row_requests import RowRequests, build_row_requests
from features.row_requests import Transaction as FeatureTransaction
from features.row_states import compute_features
from serving.decisions import REQUEST_ONLY, RULE, STALE, decide, explain_rows
from serving.lane_metrics import LaneMetrics
from serving.online_store import OnlineStore, StoreAnswer
from serving.prediction_log import ScoredBatch
from serving.row_matrix import NEEDS_HISTORY, FeatureLayout, FeatureRows, HasColumns, ModelInput
from serving.score_messages import Answer, Reason, make_probe

if TYPE_CHECKING:
    from training.artefact import Artefact
    from training.encoding import Floats

logger = logging.getLogger("bentoml.throughline")

Margins = Callable[["Floats"], Awaitable["Floats"]]
"""Raw model columns ``(rows, features)`` -> log-odds ``(rows,)``, from a device."""
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
    margins: Margins | None = None
    """Asks a device for the model's margins; ``None`` where the model gives them itself."""


class ScoreCounts(NamedTuple):
    """Transactions answered since the process started, and how many of them without the store."""

    scored: int
    degraded: int


class Receiver(Protocol):
    """Takes the answers of a request, or what went wrong; a future is one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, answers: list[Answer], /) -> None:
        """Take the answers."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Take what went wrong."""
        ...


class BatchTimes(NamedTuple):
    """When a batch began, and when each of its stages was over, by ``time.perf_counter``."""

    started: float
    has_states: float
    has_features: float
    has_scores: float
    recorded: float


class _Waiting(NamedTuple):
    """A request that the next batch answers: when its body was there, and when it was decoded."""

    transactions: Sequence[Scorable]
    receiver: Receiver
    began: float
    received: float


class Scorer:
    """Score transactions with the current champion; used in one event loop.

    Args:
        store: The online store.
        feature_set: The features the store holds.
        record: Takes each scored batch for the prediction log; must not block.
        metrics: Told what happens.
        max_waiting_rows: Accepted and not yet answered, at most.
        publish: Takes each scored batch for the stream, and when it was decided, microseconds
            since 1970; must not block.
        open_device: Puts a champion on a device; ``None`` for one that stays where it is.

    Attributes:
        times: Of the batch that was scored last, until the next one.
    """

    def __init__(
        self,
        *,
        store: OnlineStore,
        feature_set: FeatureSet,
        record: Callable[[ScoredBatch], None],
        metrics: LaneMetrics,
        max_waiting_rows: int,
        publish: Callable[[Sequence[Scorable], int], None] | None = None,
        open_device: Callable[[Artefact], Margins | None] | None = None,
    ) -> None:
        self.store = store
        self.feature_set = feature_set
        self.metrics = metrics
        self.max_waiting_rows = max_waiting_rows
        self.champion: Champion | None = None
        self.versions_served: list[str] = []
        self.counts = ScoreCounts(0, 0)
        self._record = record
        self._publish = publish or _publish_nothing
        self._open_device = open_device
        self.times: BatchTimes | None = None
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
            ValueError: If it needs features that the store lacks, or does not run on the device.
        """
        model_input = ModelInput(artefact.spec.encoding, self.feature_set)
        margins = self._open_device(artefact) if self._open_device is not None else None
        champion = Champion(version, artefact, model_input, margins)
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
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[list[Answer]] = loop.create_future()
        self.submit_to(transactions, future, began=time.perf_counter())
        return future

    def submit_to(
        self, transactions: Sequence[Scorable], receiver: Receiver, *, began: float
    ) -> None:
        """Have transactions scored for whoever takes the answers; see ``submit``.

        Args:
            transactions: As for ``submit``.
            receiver: Takes the answers, or what went wrong, the moment they are there.
            began: When their body was there, not yet decoded, by ``time.perf_counter``.
        """
        rows = len(transactions)
        self.check_accepts(rows)
        self._waiting.append(_Waiting(transactions, receiver, began, time.perf_counter()))
        self._num_waiting_rows += rows
        if not self._is_flush_due and not self._batches:
            self._is_flush_due = True
            loop = self._loop = self._loop or asyncio.get_running_loop()
            loop.call_soon(self._flush)

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
        champion = self.check_accepts(min(len(transactions), BATCH_ROWS))
        answers: list[Answer] = []
        for start in range(0, len(transactions), BATCH_ROWS):
            part = transactions[start : start + BATCH_ROWS]
            self._num_waiting_rows += len(part)  # the rest waits with its caller, not here
            try:
                received = np.full(len(part), time.perf_counter())
                answers += await self._score(part, champion, received, explain=explain)
            finally:
                self._num_waiting_rows -= len(part)
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
        while self._num_waiting_rows:
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
        except BaseException as error:
            logger.exception("a batch of %d transactions failed", len(transactions))
            failure = error if isinstance(error, Exception) else RuntimeError("stopped")
            _fail(group, failure)
            if not isinstance(error, Exception):
                raise
        else:
            # One request stands for all of its batch: a clock is read per batch, not per request.
            one = group[-1]
            self.metrics.observe_stage("decode", (one.received - one.began) * len(group))
            answered = time.perf_counter()
            _hand_out(group, answers)
            self.metrics.observe_stage("encode", time.perf_counter() - answered)
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
        if champion.margins is None:
            known = champion.artefact.predict_matrix(matrix)
        else:
            margins = await champion.margins(matrix)
            known = champion.artefact.spec.calibration.apply(margins)
        scores, decisions = decide(champion.artefact, matrix, known, requests, degraded)
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
        self._publish(transactions, batch.prediction_time_us)
        recorded = clock()
        self.times = BatchTimes(started, has_states, has_features, has_scores, recorded)
        metrics = self.metrics
        metrics.observe_batch(len(transactions))
        metrics.observe_stage("store", has_states - started)
        metrics.observe_stage("features", has_features - has_states)
        metrics.observe_stage("model", has_scores - has_features)
        metrics.observe_stage("record", recorded - has_scores)
        self._count(found, degraded)
        reasons = await explain_rows(champion.artefact, matrix, degraded) if explain else None
        return _make_answers(batch, reasons)

    def _compute(
        self, found: StoreAnswer, requests: RowRequests, transactions: Sequence[Scorable]
    ) -> tuple[FeatureRows, list[str | None]]:
        """Compute features; without history, those that need none."""
        computed, marks = compute_features(found.states, requests)
        degraded: list[str | None] = [None] * len(transactions)
        is_unreadable = marks == UNREADABLE
        if not is_unreadable.any() and not any(age is None or age for age in found.ages):
            return self._layout.arrange(computed, transactions), degraded
        for row, age in enumerate(found.ages):
            if age is None or is_unreadable[row]:
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


def _publish_nothing(_transactions: Sequence[Scorable], _decided_us: int) -> None:
    """Keep what was scored from the stream."""


def _hand_out(group: Sequence[_Waiting], answers: list[Answer]) -> None:
    """Give each request its part; one that cannot take it costs the others nothing."""
    start = 0
    for waiting in group:
        end = start + len(waiting.transactions)
        try:
            if not waiting.receiver.done():  # the client may have gone
                waiting.receiver.set_result(answers[start:end])
        except Exception:
            logger.exception("an answer could not be given")
        start = end


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    """Tell each request that it failed; one that cannot be told costs the others nothing."""
    for waiting in group:
        try:
            if not waiting.receiver.done():
                waiting.receiver.set_exception(error)
        except Exception:
            logger.exception("an error could not be told")


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
