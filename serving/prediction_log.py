"""Predictions become Arrow record batches on disk, off the request's path; drops are counted.

Each process appends to segments of its own, ``<folder>/<UTC day>-<started>-<process>-<n>.arrows``:
a new one each day and after a write that failed. A flush is one record batch of columns, so that
a record costs the interpreter next to nothing; it is there whole or not at all (see
``serving.prediction_segment``). A process killed with -9 loses what it had not flushed, at most
``flush_seconds`` of records; a power cut may lose more, since nothing is synced to the disk.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from serving.prediction_records import build_frames, build_records, build_schema, is_record_schema
from serving.prediction_segment import SUFFIX, SegmentWriter, read_segment

if TYPE_CHECKING:
    from features.fraud_selection import FeatureSet
    from training.encoding import Floats, Integers

logger = logging.getLogger("bentoml.throughline")

Decision = Literal["approve", "review", "decline"]
Arm = Literal["champion", "challenger", "shadow"]
SHADOW: Literal["shadow"] = "shadow"

LOAD_TEST_PREFIX = "throughline-load:"
"""Transactions a load test invents begin with this; no truth will ever arrive for them."""


@dataclass(frozen=True)
class ScoredBatch:
    """What one model said to some transactions at one moment, as columns in the same order.

    Attributes:
        prediction_time_us: When it was decided, microseconds since 1970.
        model_version: Which model decided about all of them.
        arm: The role the model played: ``champion``; ``challenger``, which answered a canary's
            customers; or ``shadow``, whose word nobody was given: the same transactions have
            records of the champion's.
        transaction_ids: One per row.
        event_times_us: When each happened, microseconds since 1970. Shape ``(rows,)``.
        amounts: Account currency. Shape ``(rows,)``.
        features: The model's numbers as scored, in the order of ``FeatureSet.numeric``, NaN for
            missing. Shape ``(rows, numeric features)``.
        categories: Its strings, None for missing: one sequence of all rows for each of
            ``FeatureSet.categorical``.
        scores: Calibrated probabilities. Shape ``(rows,)``.
        decisions: ``approve``, ``review`` or ``decline``, one per row.
        degraded_reasons: Why a row was answered with less than it should have been, or None.
        latency_ms: From the decoded request to its decision, without the time that rows of
            another arm took. Shape ``(rows,)``.
        outcome_shares: With which probability the decision that was answered lets the outcome be
            seen, in [0, 1]: 0 for what was declined, ``serving.explore_share`` for what was let
            through though it would have been. Shape ``(rows,)``; ``None`` where all are 1.
    """

    prediction_time_us: int
    model_version: str
    arm: Arm
    transaction_ids: Sequence[str]
    event_times_us: Integers
    amounts: Floats
    features: Floats
    categories: Sequence[Sequence[str | None]]
    scores: Floats
    decisions: Sequence[Decision]
    degraded_reasons: Sequence[str | None]
    latency_ms: Floats
    outcome_shares: Floats | None = None


class LogCounts(NamedTuple):
    """Records since the process started: on disk, waiting, and lost to a full queue or disk."""

    written: int
    pending: int
    dropped: int


class PredictionLog:
    """Append batches of predictions to this process's segment without making a request wait.

    Args:
        folder: Where the segments are; made if absent.
        feature_set: Names the columns of every batch's ``features`` and its ``categories``.
        flush_seconds: How long a record may wait in memory.
        max_pending: How many records may wait; further ones are dropped and counted.
    """

    def __init__(
        self, folder: Path, *, feature_set: FeatureSet, flush_seconds: float, max_pending: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.feature_set = feature_set
        self.flush_seconds = flush_seconds
        self.max_pending = max_pending
        self._schema = build_schema(feature_set)
        self._started = f"{datetime.now(UTC):%H%M%S%f}-{os.getpid()}"
        self._num_segments = 0
        self._segment: SegmentWriter | None = None
        self._day = ""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._batches: deque[ScoredBatch] = deque()
        self._counts = LogCounts(0, 0, 0)
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_until_closed, name="prediction-log")
        self._writer.daemon = True
        self._writer.start()

    @property
    def counts(self) -> LogCounts:
        """Records written, pending and dropped so far."""
        return self._counts

    def append(self, batch: ScoredBatch) -> None:
        """Queue a batch for writing, or drop it whole if the queue has no room for it."""
        rows = len(batch.transaction_ids)
        with self._lock:
            written, pending, dropped = self._counts
            if pending + rows > self.max_pending or self._closing.is_set():
                self._counts = LogCounts(written, pending, dropped + rows)
                return
            self._counts = LogCounts(written, pending + rows, dropped)
            self._batches.append(batch)

    def flush(self) -> None:
        """Write everything queued so far; a failed write drops its records and counts them."""
        with self._writing:
            with self._lock:
                batches, self._batches = self._batches, deque()
            if not batches:
                return
            rows = sum(len(batch.transaction_ids) for batch in batches)
            num_written = rows if self._try_to_write(batches) else 0
            with self._lock:
                written, pending, dropped = self._counts
                self._counts = LogCounts(
                    written + num_written, pending - rows, dropped + rows - num_written
                )

    def close(self) -> None:
        """Stop the writer after a last flush; later batches are dropped and counted."""
        self._closing.set()
        self._writer.join()
        self.flush()
        with self._writing:
            self._end_segment()

    def _write_until_closed(self) -> None:
        while not self._closing.wait(self.flush_seconds):
            self.flush()

    def _try_to_write(self, batches: Sequence[ScoredBatch]) -> bool:
        """Write the batches; whatever goes wrong is logged, for the writer must not die of it."""
        try:
            records = build_records(batches, schema=self._schema)
            self._open_segment().append(records)
        except OSError as error:
            self._segment = None  # it has closed itself; the next write begins another
            logger.error("prediction records lost: %s", error)  # noqa: TRY400
            return False
        except Exception:
            logger.exception("prediction records lost")
            return False
        return True

    def _open_segment(self) -> SegmentWriter:
        """Return today's segment; a new one if the day changed or the last one failed."""
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        if day != self._day:
            self._end_segment()
        if self._segment is None:
            name = f"{day}-{self._started}-{self._num_segments}{SUFFIX}"
            self._segment = SegmentWriter(self.folder / name, schema=self._schema)
            self._num_segments += 1
            self._day = day
        return self._segment

    def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()


def get_prediction_folder(runs: Path) -> Path:
    """Return the folder of the prediction log below ``runs``."""
    return runs / "predictions"


def load_predictions(
    folder: Path, *, with_shadow: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read every segment of a prediction log.

    Args:
        folder: As given to ``PredictionLog``; it may be absent, and may be written to meanwhile.
        with_shadow: Whether to return also what a challenger said in the shadow, which nobody was
            answered; such a transaction has two rows.

    Returns:
        ``(predictions, features)`` with the same index, in order of ``prediction_time``.
        ``predictions`` has one row per record and its columns except ``features``; times are
        ``datetime64[us, UTC]``. ``predictions.attrs["num_truncated"]`` counts the segments whose
        last record batch a killed process left unfinished. ``features`` has a column per feature
        name: float64 where no value is a string, else objects; NaN or None where a record lacked
        it. Both are empty, with no feature columns, if there is no record. The inventions of a
        load test (``LOAD_TEST_PREFIX``) are left out. ``outcome_share`` is 1 in records of an
        earlier release, which knew no other.

    Raises:
        ValueError: If a segment is damaged or was written by an earlier release; the message
            names it.
    """
    old = next(folder.glob("*.jsonl"), None)
    if old is not None:
        raise ValueError(
            f"{old} was written by an earlier release, as lines of JSON, which this one does not"
            " read; move it out of the folder"
        )
    batches: list[pa.RecordBatch] = []
    num_truncated = 0
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        segment = read_segment(path)
        if not all(is_record_schema(batch.schema) for batch in segment.batches):
            raise ValueError(f"{path} is no prediction log, its columns are others; move it away")
        num_truncated += segment.is_truncated
        batches.extend(_select(batch, with_shadow=with_shadow) for batch in segment.batches)
    predictions, features = build_frames([batch for batch in batches if len(batch)])
    predictions.attrs["num_truncated"] = num_truncated
    return predictions, features


def _select(batch: pa.RecordBatch, *, with_shadow: bool) -> pa.RecordBatch:
    """Leave out what load tests invented, and what was said in the shadow unless it is wanted."""
    is_left_out = pc.starts_with(batch["transaction_id"], LOAD_TEST_PREFIX)
    if not with_shadow:
        is_shadow = pc.equal(batch["arm"].dictionary_decode(), SHADOW)
        is_left_out = pc.or_(is_left_out, is_shadow)
    return batch.filter(pc.invert(is_left_out))
