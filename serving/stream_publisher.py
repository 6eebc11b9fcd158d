"""Transactions that were scored go to the stream, off the request path, so that the next is told.

A request pays for an append to a queue. A thread takes what has gathered, encodes it and appends
it to the log in micro-batches; while the log is away it keeps trying, and the queue fills. What
the queue has no room for is dropped and counted: the answer was given, the windows lack it.

Each is published at least once; counting it once is the stream's work (``transaction_id``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from features.connections import is_temporary
from features.row_requests import Transaction as FeatureTransaction
from features.stream_log import StreamLog, publish
from features.stream_messages import StreamTransaction
from serving.prediction_log import LOAD_TEST_PREFIX

logger = logging.getLogger("bentoml.throughline")

GATHER_SECONDS = 0.02
"""How long a micro-batch gathers: the log may sync its disk for each."""
CHUNK_ROWS = 1000
"""Appended at once, or one batch more."""
TURN_ROWS = 100
"""Encoded in one go: about 0.3 ms during which the event loop may have to wait."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.05, 1.0
CLOSE_SECONDS = 5.0
"""How long ``close`` waits for a log that is away."""


class Publishable(FeatureTransaction, Protocol):
    """A transaction of either lane."""

    @property
    def transaction_id(self) -> str: ...  # noqa: D102
    @property
    def card_type(self) -> str | None: ...  # noqa: D102


class PublishCounts(NamedTuple):
    """Transactions since the process started: in the log, waiting, and lost.

    Attributes:
        published: In the log.
        pending: Waiting for the log.
        dropped: Lost to a full queue, or to a log that refused them.
        cpu_seconds: Processor time of the publishing thread.
    """

    published: int
    pending: int
    dropped: int
    cpu_seconds: float


class _Batch(NamedTuple):
    transactions: Sequence[Publishable]
    available_time: int


class StreamPublisher:
    """Append transactions to the log without making a request wait.

    The inventions of a load test (``LOAD_TEST_PREFIX``) are left out: they happened to nobody.

    Args:
        log: Where they go; used by the publisher's thread alone.
        max_pending: How many may wait; a batch that would exceed it is dropped and counted.
    """

    def __init__(self, log: StreamLog, *, max_pending: int) -> None:
        self._log = log
        self._max_pending = max_pending
        self._queue: deque[_Batch] = deque()
        self._lock = threading.Lock()
        self._published = self._pending = self._dropped = 0
        self._cpu_seconds = 0.0
        self._has_work, self._closing = threading.Event(), threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="stream-publisher", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> PublishCounts:
        """Transactions published, pending and dropped so far."""
        with self._lock:
            return PublishCounts(self._published, self._pending, self._dropped, self._cpu_seconds)

    def append(self, transactions: Sequence[Publishable], available_time: int) -> None:
        """Queue scored transactions, or drop them all if the queue has no room for them.

        Args:
            transactions: Of one batch.
            available_time: When they were decided, microseconds since 1970.
        """
        rows = len(transactions)
        with self._lock:
            if self._pending + rows > self._max_pending or self._closing.is_set():
                self._dropped += rows
                return
            self._pending += rows
            self._queue.append(_Batch(transactions, available_time))
        self._has_work.set()

    def close(self) -> None:
        """Publish what is queued, for ``CLOSE_SECONDS`` at most; later batches are dropped."""
        with self._lock:
            self._give_up_at = time.monotonic() + CLOSE_SECONDS
            self._closing.set()
        self._has_work.set()
        self._thread.join(CLOSE_SECONDS + 1.0)

    def _run(self) -> None:
        while self._queue or not self._closing.is_set():
            self._has_work.wait()
            self._closing.wait(GATHER_SECONDS)
            self._has_work.clear()
            self._publish_chunk()
            self._cpu_seconds = time.thread_time()
            if self._queue:
                self._has_work.set()

    def _publish_chunk(self) -> None:
        """Take some ``CHUNK_ROWS`` from the queue into the log, however long it is away."""
        rows, batches = 0, []
        while self._queue and rows < CHUNK_ROWS:
            batches.append(self._queue.popleft())
            rows += len(batches[-1].transactions)
        num_published = self._try_to_publish(batches)
        with self._lock:
            self._pending -= rows
            self._published += num_published or 0
            self._dropped += rows if num_published is None else 0

    def _try_to_publish(self, batches: Sequence[_Batch]) -> int | None:
        """Append batches; whatever goes wrong is logged, for the thread must not die of it.

        Returns:
            How many transactions; ``None`` if they are lost.
        """
        try:
            lines = [line for batch in batches for line in _encode_in_turns(batch)]
            self._append_patiently(lines)
        except Exception:
            logger.exception("scored transactions lost to the stream")
            return None
        return len(lines)

    def _append_patiently(self, lines: Sequence[tuple[StreamTransaction, bytes]]) -> None:
        """Append lines, again and again while the log is away, until ``close`` gives up."""
        pause = 0.0
        while True:
            try:
                publish(self._log, lines)
            except Exception as error:
                if not is_temporary(error) or time.monotonic() > self._give_up_at:
                    raise
                if not pause:
                    logger.warning("scored transactions wait for the stream: %s", error)
                pause = min(2 * pause or FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
                if self._closing.wait(pause):
                    time.sleep(FIRST_PAUSE_SECONDS)
            else:
                if pause:
                    logger.warning("scored transactions reach the stream again")
                return


_encode = msgspec.json.Encoder().encode
_read_columns = attrgetter(
    *("transaction_id", "event_time", "customer_id", "amount", "merchant_id"),
    *("merchant_category", "card_type", "device_id", "ip", "latitude", "longitude"),
)


def encode_scored(
    transactions: Iterable[Publishable], *, available_time: int
) -> Iterator[tuple[StreamTransaction, bytes]]:
    """Turn scored transactions into the stream's lines, in the same order.

    Args:
        transactions: Of either lane; those of a load test are left out.
        available_time: When they were decided, microseconds since 1970.
    """
    for transaction_id, time_, customer_id, *rest in map(_read_columns, transactions):
        if not transaction_id.startswith(LOAD_TEST_PREFIX):
            # As features.row_requests: a double holds microseconds of this century.
            event_time = round(datetime.timestamp(time_) * 1e6)
            message = StreamTransaction(
                transaction_id, event_time, available_time, customer_id, *rest
            )
            yield message, _encode(message)


def _encode_in_turns(batch: _Batch) -> Iterator[tuple[StreamTransaction, bytes]]:
    """Encode a batch, and let the event loop have the interpreter now and then."""
    transactions, available_time = batch
    for start in range(0, len(transactions), TURN_ROWS):
        time.sleep(0)
        part = transactions[start : start + TURN_ROWS]
        yield from encode_scored(part, available_time=available_time)
