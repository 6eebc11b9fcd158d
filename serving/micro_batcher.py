"""Rows of many callers become few batches, scored in one thread of their own.

A device scores a thousand rows in about the time of one, and a call to it blocks; so the event
loop hands rows over, waits a bounded time for others to join them, and never blocks itself.

Invariants: a caller gets its own rows' margins, in its order, and no other's; a batch that fails,
fails its own callers; a caller who leaves harms nobody; what was taken in before ``close`` is
answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from training.encoding import Floats


class _Piece(NamedTuple):
    rows: Floats
    due: float  # of the loop's clock: when it goes, however few have joined it
    answer: asyncio.Future[Floats]


class MicroBatcher:
    """Gather rows up to a number or a time, and score them together.

    Belongs to the event loop it is first used in. While one batch is scored the next one gathers,
    so under load batches grow by themselves and nobody waits for the time to pass.

    Args:
        score: Rows ``(rows, features)`` -> margins ``(rows,)``; blocks, one thread calls it.
        max_rows: Most rows of one batch; a caller with more gets several.
        max_wait_ms: Longest that a row waits for others while nothing is being scored.

    Raises:
        ValueError: If ``max_rows`` is below 1 or ``max_wait_ms`` negative.
    """

    def __init__(
        self, score: Callable[[Floats], Floats], *, max_rows: int, max_wait_ms: float
    ) -> None:
        if max_rows < 1 or max_wait_ms < 0:
            raise ValueError(
                f"a batch of at most {max_rows} rows after at most {max_wait_ms:g} ms holds nothing"
            )
        self._score = score
        self._max_rows = max_rows
        self._max_wait_seconds = max_wait_ms / 1e3
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._waiting: deque[_Piece] = deque()
        self._num_waiting = 0
        self._is_full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._is_closed = False

    async def margins(self, matrix: Floats) -> Floats:
        """Score rows together with other callers'.

        Args:
            matrix: Raw model columns; not to be changed before the answer. Shape
                ``(rows, features)``.

        Returns:
            Log-odds of fraud, in the order given. Shape ``(rows,)``.

        Raises:
            RuntimeError: If the batcher has been closed.
        """
        if self._is_closed:
            raise RuntimeError("the batcher is closed")
        starts = range(0, len(matrix), self._max_rows)
        answers = [self._take_in(matrix[start : start + self._max_rows]) for start in starts]
        if len(answers) == 1:  # nearly always; gathering costs as much as the rest
            return await answers[0]
        return np.concatenate([np.empty(0), *await asyncio.gather(*answers)])

    async def close(self) -> None:
        """Answer what has been taken in, then end the thread; no more is taken in."""
        self._is_closed = True
        self._is_full.set()
        if self._worker is not None:
            await asyncio.shield(self._worker)
        self._thread.shutdown(wait=True)

    def _take_in(self, rows: Floats) -> asyncio.Future[Floats]:
        loop = asyncio.get_running_loop()
        piece = _Piece(rows, loop.time() + self._max_wait_seconds, loop.create_future())
        self._waiting.append(piece)
        self._num_waiting += len(rows)
        if self._num_waiting >= self._max_rows:
            self._is_full.set()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return piece.answer

    async def _work(self) -> None:
        """Score batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._gather(until=self._waiting[0].due)
            batch = self._take_batch()
            if not batch:
                continue
            try:
                margins = await loop.run_in_executor(self._thread, self._score_together, batch)
            except Exception as error:  # noqa: BLE001 - whatever a device says, its callers hear
                _fail(batch, error)
            else:
                _answer(batch, margins)

    async def _gather(self, *, until: float) -> None:
        """Wait for a full batch, though no longer than ``until``; when closing, not at all."""
        try:
            async with asyncio.timeout_at(until):
                await self._is_full.wait()
        except TimeoutError:
            pass

    def _take_batch(self) -> list[_Piece]:
        """Take whole pieces, oldest first, as many as fit; those whose caller left are dropped."""
        batch: list[_Piece] = []
        room = self._max_rows
        while self._waiting and len(self._waiting[0].rows) <= room:
            piece = self._waiting.popleft()
            self._num_waiting -= len(piece.rows)
            if not piece.answer.cancelled():
                batch.append(piece)
                room -= len(piece.rows)
        if self._num_waiting < self._max_rows and not self._is_closed:
            self._is_full.clear()
        return batch

    def _score_together(self, batch: Sequence[_Piece]) -> Floats:
        matrix = np.concatenate([piece.rows for piece in batch])
        margins = self._score(matrix)
        assert margins.shape == (len(matrix),), "a scorer gives one margin per row"
        return margins


def _answer(batch: Sequence[_Piece], margins: Floats) -> None:
    start = 0
    for piece in batch:
        end = start + len(piece.rows)
        if not piece.answer.cancelled():
            piece.answer.set_result(margins[start:end])
        start = end


def _fail(batch: Sequence[_Piece], error: Exception) -> None:
    for piece in batch:
        if not piece.answer.cancelled():
            piece.answer.set_exception(error)
