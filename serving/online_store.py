"""An online store that may be slow, away or replaced becomes an answer for every batch.

A batch asks the store once, within a deadline and behind a circuit breaker. What the store does not
answer, states seen lately do (``serving.last_known``); for the rest the caller must do without
history. ``throughline fraud features`` replaces the store on disk while a service runs: the stamp
that is written last is looked at before each read, and a store with other features is never read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from features.fraud_selection import FeatureSet
from features.row_requests import RowRequests
from features.row_states import RowReader, RowStates
from features.shared_summaries import SharedSummaries
from serving.circuit_breaker import BreakerLimits, CircuitBreaker
from serving.last_known import LastKnown

logger = logging.getLogger("bentoml.throughline")

REOPEN_SECONDS = 1.0
"""A store that was replaced is opened anew at most this often: it takes a tenth of a second."""
OTHER_FEATURES = "the feature store was rebuilt with other features; restart the service"


class StoreUnavailableError(RuntimeError):
    """The store on disk cannot be read from."""


class SharedReader(RowReader, Protocol):
    """A reader that keeps what it knows of merchants and categories."""

    summaries: SharedSummaries


@dataclass(frozen=True)
class OpenedStore:
    """A store that can be read, its features, and how long a batch waits for it."""

    reader: SharedReader
    features: FeatureSet
    deadline_seconds: float


@dataclass(frozen=True)
class StoreAnswer:
    """The states of a batch.

    Attributes:
        states: A row per request; empty rows where nothing is known.
        ages: Per row ``0.0`` if the store itself answered, else how old its last known states are
            in seconds, or ``None`` if there are none.
    """

    states: RowStates
    ages: Sequence[float | None]


class OnlineStore:
    """Read batches from the store; made and used in one event loop.

    Args:
        open_store: Opens the store; raises while there is none. Called in a thread.
        stamp_file: The file that is written last when the store is built.
        max_age_seconds: How old last known states may be.
        breaker: When to leave the store alone.

    Raises:
        FileNotFoundError: If there is no store to begin with.
    """

    def __init__(
        self,
        *,
        open_store: Callable[[], OpenedStore],
        stamp_file: Path,
        max_age_seconds: float,
        breaker: BreakerLimits,
    ) -> None:
        self._open_store = open_store
        self._stamp_file = stamp_file
        self._stamp = self._read_stamp()
        self._store = open_store()
        self._reopening: asyncio.Task[None] | None = None
        self._opened_at = time.monotonic()
        self._why_unusable: str | None = None
        self.feature_set = self._store.features
        self.breaker = CircuitBreaker(breaker, clock=time.monotonic)
        self.last_known = LastKnown(max_age_seconds=max_age_seconds, clock=time.monotonic)
        self.error: str | None = None

    async def read(self, requests: RowRequests) -> StoreAnswer:
        """Read the states of a batch; whatever fails costs history, never the answer."""
        ticket = self.breaker.enter()
        if ticket is not None:
            try:
                self._check_stamp()
                async with asyncio.timeout(self._store.deadline_seconds):
                    states = await self._store.reader.read(requests)
            except Exception as error:  # noqa: BLE001 - a store fails in ways of its own
                self.breaker.fail(ticket)
                self._tell(error)
            else:
                self.breaker.succeed(ticket)
                self._tell(None)
                self.last_known.keep(requests, states)
                return StoreAnswer(states, [0.0] * len(requests.customers))
        return StoreAnswer(*self.last_known.recall(requests, self._store.reader.summaries))

    def close(self) -> None:
        """Let go of the store."""
        self._store.reader.close()

    def _tell(self, error: Exception | None) -> None:
        """Note and log the first failure and the first answer after it."""
        if error is not None and self.error is None:
            logger.warning("online store failed, answering without it: %r", error)
        elif error is None and self.error is not None:
            logger.warning("online store answers again")
        self.error = None if error is None else repr(error)

    def _check_stamp(self) -> None:
        """Have the store opened anew if it was replaced, and refuse to read the old one."""
        if self._read_stamp() == self._stamp and self._why_unusable is None:
            return
        is_due = time.monotonic() - self._opened_at >= REOPEN_SECONDS
        if is_due and (self._reopening is None or self._reopening.done()):
            self._opened_at = time.monotonic()
            self._reopening = asyncio.create_task(self._reopen())
        raise StoreUnavailableError(self._why_unusable or "the feature store was replaced")

    async def _reopen(self) -> None:
        stamp = self._read_stamp()
        try:
            store = await asyncio.to_thread(self._open_store)
        except Exception as error:  # noqa: BLE001 - Feast's errors are of many kinds
            self._why_unusable = repr(error)
            return
        if store.features.names != self.feature_set.names:
            self._why_unusable = OTHER_FEATURES
            store.reader.close()
            return
        self._store.reader.close()
        self._store, self._stamp, self._why_unusable = store, stamp, None

    def _read_stamp(self) -> tuple[int, int] | None:
        """Return what changes when the file is replaced, or None while there is no file."""
        try:
            found = self._stamp_file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns
