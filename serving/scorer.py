"""Transactions become scores, decisions and prediction records, many requests in one batch.

Requests that arrive while a batch is under way are scored together by the next: one round trip to
the online store, one call of the compiled features, one of the model, one record. The busier the
service, the larger its batches and the less a request costs. Both lanes use the same scorer.

Invariants: all rows of one call are answered by the models that were there when it began, whatever
is promoted meanwhile, and all rows of a customer by the same one (``serving.arms``). A store that
fails costs history, never the answer, and the answer says so. More waiting rows than
``max_waiting_rows`` are refused at once, so that those accepted are answered in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.fraud_selection import FeatureSet
from features.row_requests import build_row_requests
from serving.answers import make_answers
from serving.arms import Arms, Margins, Part, Rows
from serving.batch_features import BatchFeatures
from serving.decisions import NO_EXPLORATION, REQUEST_ONLY, RULE, STALE, Exploration
from serving.lane_metrics import LaneMetrics
from serving.lineup import Lineup
from serving.online_store import OnlineStore, StoreAnswer
from serving.prediction_log import ScoredBatch
from serving.score_messages import Answer, make_probe
from serving.shadow import Shadow
from serving.waiting import Receiver, Scorable, Waiting, fail, group_requests, hand_out

if TYPE_CHECKING:
    from training.artefact import Artefact
    from training.encoding import Floats

logger = logging.getLogger("bentoml.throughline")

BATCH_ROWS = 256
"""Rows scored in one go at most: about 5 ms during which nothing else is done."""


class NoModelError(RuntimeError):
    """No champion has been loaded yet."""


class OverloadedError(RuntimeError):
    """More rows wait than can be answered in time."""


class ScoreCounts(NamedTuple):
    """Transactions answered since the process started, and how many of them without the store."""

    scored: int
    degraded: int


class BatchTimes(NamedTuple):
    """When a batch began, and when each of its stages was over, by ``time.perf_counter``."""

    started: float
    has_states: float
    has_features: float
    has_scores: float
    recorded: float


class _Scored(NamedTuple):
    """A batch that was scored, and by whom."""

    arms: Arms
    rows: Rows
    parts: list[Part]


class Scorer:
    """Score transactions with the models that are in place; used in one event loop.

    Args:
        store: The online store.
        feature_set: The features the store holds.
        record: Takes each scored batch for the prediction log; must not block.
        metrics: Told what happens.
        max_waiting_rows: Accepted and not yet answered, at most.
        publish: Takes each scored batch for the stream, and when it was decided, microseconds
            since 1970; must not block.
        open_device: Puts a model on a device; ``None`` for one that stays where it is.
        exploration: Lets some of what would be declined through.

    Attributes:
        lineup: The models.
        shadow: Scores what was answered once more while a rollout is in the shadow.
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
        exploration: Exploration = NO_EXPLORATION,
    ) -> None:
        self.store = store
        self.feature_set = feature_set
        self.metrics = metrics
        self.max_waiting_rows = max_waiting_rows
        self.shadow = Shadow(record)
        self.lineup = Lineup(feature_set, exploration=exploration, open_device=open_device)
        self.counts = ScoreCounts(0, 0)
        self._record = record
        self._publish = publish or _publish_nothing
        self._failed_version: str | None = None
        self.times: BatchTimes | None = None
        self._features = BatchFeatures(feature_set)
        self._waiting: list[Waiting] = []
        self._num_waiting_rows = 0
        self._is_flush_due = False
        self._batches: set[asyncio.Task[None]] = set()
        self._has_answered = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def check_ready(self) -> bool:
        """Tell whether a model is loaded and the store has answered, asking it until it has.

        A store that fails later does not make the scorer unready: it still answers, degraded.
        """
        champion = self.lineup.champion
        if champion is not None and not self._has_answered:
            probe = [make_probe()]
            requests = build_row_requests(probe)
            found = await self.store.read(requests)
            rows, _ = self._features.compute(found, requests, probe)
            champion.artefact.predict_matrix(champion.model_input.encode(rows))
            self._has_answered = found.ages == [0.0]
        return champion is not None and self._has_answered

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
        self._waiting.append(Waiting(transactions, receiver, began, time.perf_counter()))
        self._num_waiting_rows += rows
        if not self._is_flush_due and not self._batches:
            self._is_flush_due = True
            loop = self._loop = self._loop or asyncio.get_running_loop()
            loop.call_soon(self._flush)

    async def score(
        self, transactions: Sequence[Scorable], *, explain: bool = False
    ) -> list[Answer]:
        """Score any number of transactions with the same models; see ``submit``.

        Args:
            transactions: In any order.
            explain: Whether to say which features moved each score most.
        """
        if len(transactions) <= BATCH_ROWS and not explain:
            return await self.submit(transactions)
        arms = self.check_accepts(min(len(transactions), BATCH_ROWS))
        scored: list[_Scored] = []
        for start in range(0, len(transactions), BATCH_ROWS):
            part = transactions[start : start + BATCH_ROWS]
            self._num_waiting_rows += len(part)  # the rest waits with its caller, not here
            try:
                received = np.full(len(part), time.perf_counter())
                scored.append(await self._score(part, arms, received, explain=explain))
            finally:
                self._num_waiting_rows -= len(part)
        for batch in scored:
            self._follow_up(batch)
        return [answer for batch in scored for answer in make_answers(batch.parts)]

    def check_accepts(self, rows: int) -> Arms:
        """Find out, at next to no cost, whether transactions would be taken; return who scores.

        Raises:
            NoModelError: If there is no champion yet.
            OverloadedError: If too many rows wait already.
        """
        if self.lineup.arms is None:
            raise NoModelError("no model has been loaded yet")
        if self._num_waiting_rows and self._num_waiting_rows + rows > self.max_waiting_rows:
            raise OverloadedError(f"{self._num_waiting_rows} transactions wait already")
        return self.lineup.arms

    async def drain(self) -> None:
        """Answer what has been accepted."""
        while self._num_waiting_rows:
            await asyncio.sleep(0.005)

    def _flush(self) -> None:
        """Start batches of all that waits."""
        self._is_flush_due = False
        waiting, self._waiting = self._waiting, []
        for group in group_requests(waiting, max_rows=BATCH_ROWS):
            task = asyncio.get_running_loop().create_task(self._answer(group))
            self._batches.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        """Start on what has gathered while the last batch was under way."""
        self._batches.discard(task)
        if self._waiting and not self._batches:
            self._flush()

    async def _answer(self, group: Sequence[Waiting]) -> None:
        """Score one batch and hand each request its part."""
        transactions = [row for waiting in group for row in waiting.transactions]
        received = np.array([w.received for w in group for _ in w.transactions])
        arms = self.lineup.arms
        assert arms is not None, "nothing is accepted without a champion"
        try:
            scored = await self._score(transactions, arms, received)
            answers = make_answers(scored.parts)
        except BaseException as error:
            logger.exception("a batch of %d transactions failed", len(transactions))
            failure = error if isinstance(error, Exception) else RuntimeError("stopped")
            fail(group, failure)
            if not isinstance(error, Exception):
                raise
        else:
            # One request stands for all of its batch: a clock is read per batch, not per request.
            one = group[-1]
            self.metrics.observe_stage("decode", (one.received - one.began) * len(group))
            answered = time.perf_counter()
            hand_out(group, answers)
            self._follow_up(scored)
            self.metrics.observe_stage("encode", time.perf_counter() - answered)
        finally:
            self._num_waiting_rows -= len(transactions)

    async def _score(
        self,
        transactions: Sequence[Scorable],
        arms: Arms,
        received: Floats,
        *,
        explain: bool = False,
    ) -> _Scored:
        """Score a batch: store, features, models, decisions, record."""
        clock = time.perf_counter
        requests = build_row_requests(transactions)
        started = clock()
        found = await self.store.read(requests)
        has_states = clock()
        features, degraded = self._features.compute(found, requests, transactions)
        has_features = clock()
        rows = Rows(
            [row.transaction_id for row in transactions],
            requests.customers,
            event_times_us=requests.integers[:, 0],
            amounts=requests.floats[:, 0],
            features=features,
            degraded=degraded,
            waited_seconds=has_features - received,
        )
        parts, failure = await arms.score(rows, explain=explain)
        has_scores = clock()
        for part in parts:
            self._record(part.batch)
            self.metrics.count_rows(part.batch.arm, len(part.batch.transaction_ids))
        self._publish(transactions, parts[-1].batch.prediction_time_us)
        recorded = clock()
        self.times = BatchTimes(started, has_states, has_features, has_scores, recorded)
        metrics = self.metrics
        metrics.observe_batch(len(transactions))
        metrics.observe_stage("store", has_states - started)
        metrics.observe_stage("features", has_features - has_states)
        metrics.observe_stage("model", has_scores - has_features)
        metrics.observe_stage("record", recorded - has_scores)
        self._count(found, [reason for part in parts for reason in part.batch.degraded_reasons])
        if failure is not None:
            self._report_failure(arms, failure)
        return _Scored(arms, rows, parts)

    def _report_failure(self, arms: Arms, failure: Exception) -> None:
        """Count a batch that the challenger failed; say why once, not for every batch."""
        assert arms.challenger is not None, "who is not there does not fail"
        self.metrics.count_challenger_failure()
        if arms.challenger.version != self._failed_version:
            self._failed_version = arms.challenger.version
            logger.error("model %s failed", arms.challenger.version, exc_info=failure)

    def _follow_up(self, scored: _Scored) -> None:
        """Have a challenger in the shadow score what was answered, after those who were."""
        arms = scored.arms
        if arms.rollout is None or arms.rollout.stage != "shadow":
            return
        assert arms.challenger is not None, "a rollout comes with its challenger"
        (part,) = scored.parts
        job = (arms.challenger, scored.rows, part.batch, arms.exploration)
        asyncio.get_running_loop().call_soon(self.shadow.submit, *job)

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
