"""Lines of the log become states in the online store: in micro-batches, effectively once.

Delivery is at least once and merging is idempotent, so each transaction counts once: a batch is
archived, its states are written, and only then is it acknowledged. Killed in between, the batch
comes again and changes nothing.

Several processors share the partitions: each holds at most its fair share, by leases that run out
when their holder is gone. A partition's states are written by its lease's holder alone.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from features.state_store import (
    Lease,
    LeaseLostError,
    StateStore,
    StoreEmptyError,
    new_token,
)
from features.stream_archive import Archive, DeadLetters
from features.stream_batch import StreamCounts, merge_batch
from features.stream_log import Entry, StreamLog, find_partition
from features.stream_messages import Lateness, StreamTransaction, check_lateness, decode

MAX_PAUSE_SECONDS = 2.0


class Accepted(NamedTuple):
    """A transaction that takes its place, and the line it came as."""

    message: StreamTransaction
    line: bytes


@dataclass(frozen=True)
class ProcessorSettings:
    """How a processor works.

    Attributes:
        batch_rows: At most how many lines are merged and written at once.
        wait_seconds: How long to wait when there is nothing to read.
        gather_seconds: From one batch to the next, at least, unless it is full: an entity's state
            is written once per batch, so many small ones are several times the work.
        lease_seconds: How long a partition stays with a processor that says nothing.
        lateness: What is too late, and what is from the future.
    """

    batch_rows: int
    wait_seconds: float
    gather_seconds: float
    lease_seconds: float
    lateness: Lateness


class StreamProcessor:
    """Keep the online store up to date with the log.

    Args:
        log: Where transactions come from.
        states: The online store.
        archive: Where accepted lines go.
        dead_letters: Where refused lines go.
        settings: See ``ProcessorSettings``.
        is_temporary: Says of an error whether it is waited for, until it is over; what was read
            stays unacknowledged meanwhile. Any other ends the processor.
        observe: Called after each write with the seconds from ``available_time`` to now, one per
            accepted transaction. Shape ``(transactions,)``.
        tell: Called with a sentence when the processor starts to wait, and when it goes on.
    """

    def __init__(
        self,
        *,
        log: StreamLog,
        states: StateStore,
        archive: Archive,
        dead_letters: DeadLetters,
        settings: ProcessorSettings,
        is_temporary: Callable[[Exception], bool],
        observe: Callable[[np.ndarray], None] = lambda _: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.counts = StreamCounts()
        self.watermark: int | None = None
        self._log = log
        self._states = states
        self._archive = archive
        self._dead_letters = dead_letters
        self._settings = settings
        self._is_temporary = is_temporary
        self._observe = observe
        self._tell = tell
        self._name = new_token()
        self._leases: dict[int, Lease] = {}
        self._tended_at = -math.inf

    def run(self, *, until_empty: bool = False, should_stop: Callable[[], bool] = bool) -> None:
        """Process until told to stop, or until every partition is empty.

        Args:
            until_empty: End when everything in the log is acknowledged, by whichever processor.
            should_stop: Asked between batches.
        """
        pause = 0.0
        gc.freeze()  # else all that was ever imported is searched for garbage, batch after batch
        try:
            while not should_stop():
                try:
                    started = time.monotonic()
                    worked = self._step()
                    is_done = until_empty and not worked and self._is_empty()
                    if pause:
                        self._tell("going on")
                        pause = 0.0
                except Exception as error:
                    if not self._is_temporary(error):
                        raise
                    if not pause:
                        self._tell(f"waiting: {error}")
                    self._tended_at = -math.inf  # see which leases are left, then read again
                    pause = min(2 * pause or 0.05, MAX_PAUSE_SECONDS)
                    time.sleep(pause)
                    continue
                if is_done:
                    return
                if not worked:
                    time.sleep(self._settings.wait_seconds)
                elif not until_empty and worked < self._settings.batch_rows:
                    due = started + self._settings.gather_seconds
                    time.sleep(max(0.0, due - time.monotonic()))
        finally:
            gc.unfreeze()
            self.close()

    def close(self) -> None:
        """Give the partitions back at once, so that nobody waits for the leases to run out."""
        try:
            for lease in self._leases.values():
                self._states.release(lease)
            self._states.forget_processor(self._name)
        except Exception as error:
            if not self._is_temporary(error):
                raise
        finally:
            self._leases.clear()
            self._tended_at = -math.inf

    def _step(self) -> int:
        """Process one batch of each partition held; return how many lines that were."""
        now = time.monotonic()
        if now - self._tended_at > self._settings.lease_seconds / 3:
            self._tend_leases()
            self._tended_at = now
        num = 0
        for partition, lease in list(self._leases.items()):
            if time.monotonic() - self._tended_at > self._settings.lease_seconds:
                break  # a batch took so long that the leases may have run out
            entries = self._log.read(partition, max_entries=self._settings.batch_rows)
            try:
                self._process(lease, entries)
            except LeaseLostError:
                # Still ours if it was the store that changed: then let go, for whoever comes next.
                self._states.release(self._leases.pop(partition))
                self._tended_at = -math.inf
            num += len(entries)
        return num

    def _tend_leases(self) -> None:
        """Renew the leases, and take or give back partitions until the share is fair."""
        self._check_whole()
        seconds = self._settings.lease_seconds
        for partition, lease in list(self._leases.items()):
            if not self._states.renew(lease, seconds=seconds):
                del self._leases[partition]
        processors = self._states.list_processors(self._name, seconds=seconds)
        each, rest = divmod(self._log.num_partitions, len(processors))
        fair_share = each + (processors.index(self._name) < rest)
        for partition in sorted(self._leases)[fair_share:]:
            self._states.release(self._leases.pop(partition))
        for partition in range(self._log.num_partitions):
            # What a processor read after its lease had run out was never acknowledged.
            self._log.rewind(partition)
            if partition not in self._leases and len(self._leases) < fair_share:
                lease_or_none = self._states.acquire(partition, seconds=seconds)
                if lease_or_none is not None:
                    self._leases[partition] = lease_or_none

    def _check_whole(self) -> None:
        """Notice an empty store while there is nothing to read: the log may have gone with it."""
        if not self._states.is_whole():
            raise StoreEmptyError

    def _is_empty(self) -> bool:
        self._check_whole()
        return not any(map(self._log.count_waiting, range(self._log.num_partitions)))

    def _process(self, lease: Lease, entries: Sequence[Entry]) -> None:
        """Archive a batch, write its states, acknowledge it: in this order."""
        if not entries:
            return
        counts = StreamCounts(batches=1)
        accepted = self._sort_out(lease.partition, entries, counts)
        at_home = [item for item in accepted if self._is_home(item.message, lease.partition)]
        # Each partition archives all it accepts: a rebuild must not wait for the other partitions.
        self._archive.append(lease.partition, [item.line for item in accepted])
        updates = merge_batch(
            self._states,
            [item.message for item in accepted],
            partition=lease.partition,
            num_partitions=self._log.num_partitions,
            counts=counts,
        )
        self._states.write(updates, lease=lease)
        self._log.acknowledge(lease.partition, entries)
        self.counts.add(counts)
        if at_home:
            available = np.array([item.message.available_time for item in at_home])
            newest = int(available.max()) - self._settings.lateness.max_lateness
            self.watermark = max(newest, self.watermark or newest)
            self._observe(time.time() - available / 1e6)

    def _sort_out(
        self, partition: int, entries: Sequence[Entry], counts: StreamCounts
    ) -> list[Accepted]:
        """Part what takes its place from what becomes a dead letter."""
        accepted, refused = [], []
        now = time.time_ns() // 1000
        for entry in entries:
            try:
                message = decode(entry.line)
            except ValueError as error:
                counts.undecodable += 1
                refused.append((entry, str(error)))
                continue
            reason = check_lateness(message, self._settings.lateness, now=now)
            if reason is None:
                accepted.append(Accepted(message, entry.line))
            elif self._is_home(message, partition):
                counts.late += reason.startswith("late")
                counts.future += not reason.startswith("late")
                refused.append((entry, reason))
        self._dead_letters.add(partition, refused)
        return accepted

    def _is_home(self, message: StreamTransaction, partition: int) -> bool:
        """Whether this is the one partition that counts a transaction."""
        return find_partition(message.customer_id, self._log.num_partitions) == partition
