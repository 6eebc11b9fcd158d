"""What was answered is scored once more, by a challenger whose word nobody is given.

In a thread of its own, after the answers have been handed out: no request waits for it, and what it
raises is counted and logged once. It scores on the CPU, whatever the champion runs on. Rows that it
cannot keep up with are left out and counted; rows without history are left out, for their score is
another model's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from serving.arms import Model, Rows, settle
from serving.decisions import Exploration
from serving.prediction_log import SHADOW, ScoredBatch

logger = logging.getLogger("bentoml.throughline")

MAX_PENDING_ROWS = 4096
"""Rows that may wait for the thread: less than a second's work for any model."""


class ShadowCounts(NamedTuple):
    """Rows since the process started: in the log, failed, left out, and waiting."""

    scored: int = 0
    failed: int = 0
    dropped: int = 0
    pending: int = 0


class Shadow:
    """Score answered rows with a challenger; ``submit`` is called in one thread.

    Args:
        record: Takes each scored batch for the prediction log, in the shadow's thread.
    """

    def __init__(self, record: Callable[[ScoredBatch], None]) -> None:
        self._record = record
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")  # starts when needed
        self._lock = threading.Lock()
        self._counts = ShadowCounts()
        self._failed_version: str | None = None

    @property
    def counts(self) -> ShadowCounts:
        """Rows scored, failed, dropped and pending so far."""
        return self._counts

    def submit(
        self, model: Model, rows: Rows, answered: ScoredBatch, exploration: Exploration
    ) -> None:
        """Have rows scored soon, unless too many wait.

        Args:
            model: The challenger.
            rows: A batch.
            answered: What it was answered: whether an outcome will be seen depends on that alone.
            exploration: As for the answer, so that decisions compare.
        """
        num = len(rows.transaction_ids)
        if self._counts.pending + num > MAX_PENDING_ROWS:
            self._count(dropped=num)
            return
        self._count(pending=num)
        self._thread.submit(self._score, model, rows, answered, exploration)

    def close(self) -> None:
        """Score what waits, then end the thread."""
        self._thread.shutdown(wait=True)

    def _score(
        self, model: Model, rows: Rows, answered: ScoredBatch, exploration: Exploration
    ) -> None:
        num = len(rows.transaction_ids)
        try:
            num_scored = self._score_whole(model, rows, answered, exploration)
        except Exception:
            self._count(failed=num, pending=-num)
            if model.version != self._failed_version:  # once, not for every batch
                self._failed_version = model.version
                logger.exception("model %s failed in the shadow", model.version)
        else:
            self._count(scored=num_scored, pending=-num)
        time.sleep(0)  # the event loop may wait for the interpreter's lock

    def _score_whole(
        self, model: Model, rows: Rows, answered: ScoredBatch, exploration: Exploration
    ) -> int:
        """Score and record the rows that have their history; return how many they are."""
        began = time.perf_counter()
        whole = np.flatnonzero([reason is None for reason in rows.degraded])
        if not whole.size:
            return 0
        own = rows if whole.size == len(rows.degraded) else rows.take(whole)
        matrix = model.model_input.encode(own.features)
        scores = model.artefact.predict_matrix(matrix)
        batch = settle(model, SHADOW, own, matrix, scores, exploration, began=began)
        assert answered.outcome_shares is not None
        self._record(replace(batch, outcome_shares=answered.outcome_shares[whole]))
        return whole.size

    def _count(
        self, *, scored: int = 0, failed: int = 0, dropped: int = 0, pending: int = 0
    ) -> None:
        changes = (scored, failed, dropped, pending)
        with self._lock:
            sums = (total + change for total, change in zip(self._counts, changes, strict=True))
            self._counts = ShadowCounts(*sums)
