"""Predictions become lines of JSON on disk, off the request's path; drops are counted.

Each process appends to a segment of its own, ``<folder>/<UTC day>-<started>-<process>.jsonl``, in
one write per flush. A record is a whole line or it is not there: what a killed process left of
its last line is set aside by the reader and counted. A process killed with -9 loses what it had
not flushed, at most ``flush_seconds`` of records; a power cut may lose more, since nothing is
synced to the disk.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import pandas as pd

logger = logging.getLogger("bentoml.throughline")

Decision = Literal["approve", "review", "decline"]

LOAD_TEST_PREFIX = "throughline-load:"
"""Transactions a load test invents begin with this; no truth will ever arrive for them."""


@dataclass(frozen=True)
class ScoredBatch:
    """What one request was answered, as columns; rows share the request's order.

    Attributes:
        prediction_time: When the answer was decided.
        model_version: Which model answered all of it.
        arm: The role the model played, ``champion`` until a challenger shares the traffic.
        transactions: At least ``transaction_id``, ``event_time`` (UTC), ``amount``.
        features: The model's inputs as scored: numbers (NaN for missing) and strings.
        scores: Calibrated probabilities, one per row.
        decisions: ``approve``, ``review`` or ``decline``, one per row.
        degraded_reason: Why history is missing from all rows, or None.
        latency_ms: From the request's decoded rows to its decisions, for the batch as a whole.
    """

    prediction_time: datetime
    model_version: str
    arm: str
    transactions: pd.DataFrame
    features: pd.DataFrame
    scores: list[float]
    decisions: list[Decision]
    degraded_reason: str | None
    latency_ms: float


class PredictionRecord(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the log."""

    prediction_time: datetime
    transaction_id: str
    event_time: datetime
    amount: float
    model_version: str
    arm: str
    features: dict[str, float | str | None]
    score: float
    decision: Decision
    degraded_reason: str | None
    latency_ms: float


class LogCounts(NamedTuple):
    """Records since the process started: on disk, waiting, and lost to a full queue or disk."""

    written: int
    pending: int
    dropped: int


class PredictionLog:
    """Append batches of predictions to this process's segment without making a request wait.

    Args:
        folder: Where the segments are; made if absent.
        flush_seconds: How long a record may wait in memory.
        max_pending: How many records may wait; further ones are dropped and counted.
    """

    def __init__(self, folder: Path, *, flush_seconds: float, max_pending: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.flush_seconds = flush_seconds
        self.max_pending = max_pending
        self._started = f"{datetime.now(UTC):%H%M%S%f}-{os.getpid()}"
        self._lock = threading.Lock()
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
        rows = len(batch.scores)
        with self._lock:
            written, pending, dropped = self._counts
            if pending + rows > self.max_pending or self._closing.is_set():
                self._counts = LogCounts(written, pending, dropped + rows)
                return
            self._counts = LogCounts(written, pending + rows, dropped)
            self._batches.append(batch)

    def flush(self) -> None:
        """Write everything queued so far; a failed write drops its records and counts them."""
        with self._lock:
            batches, self._batches = self._batches, deque()
        if not batches:
            return
        rows = sum(len(batch.scores) for batch in batches)
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

    def _write_until_closed(self) -> None:
        while not self._closing.wait(self.flush_seconds):
            self.flush()

    def _try_to_write(self, batches: deque[ScoredBatch]) -> bool:
        """Write the batches; whatever goes wrong is logged, for the writer must not die of it."""
        try:
            self._append_to_segment(b"".join(encode_batch(batch) for batch in batches))
        except OSError as error:
            logger.error("prediction records lost: %s", error)  # noqa: TRY400
            return False
        except Exception:
            logger.exception("prediction records lost")
            return False
        return True

    def _append_to_segment(self, lines: bytes) -> None:
        """Append whole lines; if that fails half-way, take the half back."""
        segment = self.folder / f"{datetime.now(UTC):%Y-%m-%d}-{self._started}.jsonl"
        handle = os.open(segment, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        size_before = os.fstat(handle).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError:
            os.ftruncate(handle, size_before)
            raise
        finally:
            os.close(handle)


def encode_batch(batch: ScoredBatch) -> bytes:
    """Encode a batch as one line of JSON per row; NaN becomes null."""
    names = list(batch.features.columns)
    rows = zip(
        batch.transactions["transaction_id"].tolist(),
        [time.to_pydatetime() for time in batch.transactions["event_time"]],
        batch.transactions["amount"].tolist(),
        zip(*(batch.features[name].tolist() for name in names), strict=True),
        batch.scores,
        batch.decisions,
        strict=True,
    )
    encode = msgspec.json.Encoder().encode
    lines = bytearray()
    for transaction_id, event_time, amount, values, score, decision in rows:
        record = PredictionRecord(
            prediction_time=batch.prediction_time,
            transaction_id=transaction_id,
            event_time=event_time,
            amount=amount,
            model_version=batch.model_version,
            arm=batch.arm,
            features=dict(zip(names, values, strict=True)),
            score=score,
            decision=decision,
            degraded_reason=batch.degraded_reason,
            latency_ms=batch.latency_ms,
        )
        lines += encode(record) + b"\n"
    return bytes(lines)


def get_prediction_folder(runs: Path) -> Path:
    """Return the folder of the prediction log below ``runs``."""
    return runs / "predictions"


def load_predictions(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read every segment of a prediction log.

    Args:
        folder: As given to ``PredictionLog``; it may be absent, and may be written to meanwhile.

    Returns:
        ``(predictions, features)`` with the same index, in order of ``prediction_time``.
        ``predictions`` has one row per record and its columns except ``features``; times are
        ``datetime64[us, UTC]``. ``predictions.attrs["num_truncated"]`` counts the lines a killed
        process left unfinished. ``features`` has a column per feature name: float64 where no
        value is a string, else objects; NaN or None where a record had null or lacked it. Both
        are empty, with no feature columns, if there is no record. The inventions of a load test
        (``LOAD_TEST_PREFIX``) are left out.

    Raises:
        ValueError: If a finished line is not a prediction record; the message names it.
    """
    records: list[PredictionRecord] = []
    num_truncated = 0
    for segment in sorted(folder.glob("*.jsonl")):
        lines, tail = _split_lines(segment.read_bytes())
        num_truncated += bool(tail)
        records.extend(_decode_lines(lines, segment=segment))
    records.sort(key=lambda record: record.prediction_time)
    names = [name for name in PredictionRecord.__struct_fields__ if name != "features"]
    predictions = pd.DataFrame(
        {name: [getattr(record, name) for record in records] for name in names}
    )
    for name in ("prediction_time", "event_time"):
        predictions[name] = pd.to_datetime(predictions[name], utc=True).astype(
            "datetime64[us, UTC]"
        )
    predictions.attrs["num_truncated"] = num_truncated
    return predictions, _build_features(records)


def _split_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """Split into finished lines and what follows the last line feed."""
    *lines, tail = content.split(b"\n")
    return lines, tail


def _decode_lines(lines: list[bytes], *, segment: Path) -> Iterator[PredictionRecord]:
    decoder = msgspec.json.Decoder(PredictionRecord)
    for number, line in enumerate(lines, start=1):
        try:
            record = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"{segment} line {number} is no prediction record ({error}); "
                "remove the line or move the file away"
            ) from error
        if not record.transaction_id.startswith(LOAD_TEST_PREFIX):
            yield record


def _build_features(records: list[PredictionRecord]) -> pd.DataFrame:
    names = dict.fromkeys(name for record in records for name in record.features)
    columns = {}
    for name in names:
        values = [record.features.get(name) for record in records]
        is_text = any(isinstance(value, str) for value in values)
        columns[name] = pd.Series(values, dtype=object if is_text else "float64")
    return pd.DataFrame(columns, index=range(len(records)))
