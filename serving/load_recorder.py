"""What happens to each request becomes counts, a few hundred requests at a time.

Appending to a plain array costs some 40 ns; bucketing happens in batches so small that none of them
delays a request by more than a fraction of a millisecond.
"""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import numpy as np

from serving.load_histogram import NUM_BUCKETS, count_by_interval, find_buckets
from serving.load_plan import Plan, WorkerReport

BATCH = 512


class Recorder:
    """Counts what one worker sees; ``end`` gives the report."""

    def __init__(self, plan: Plan, *, begin: float) -> None:
        """Start counting; ``begin``, of ``time.perf_counter``, is when the warm-up ends."""
        shape = (plan.num_intervals, NUM_BUCKETS)
        self.report = WorkerReport(
            latencies=np.zeros(shape, np.int64),
            failures=np.zeros(plan.num_intervals, np.int64),
            began=begin,
            ended=begin,
        )
        self.is_measuring = False
        self._interval_seconds = plan.interval_seconds
        self._clock_began = self._cpu_began = 0.0
        self._core_wait_began: float | None = None
        self._clear()

    def begin(self) -> None:
        """Take the processor time at the end of the warm-up."""
        self.is_measuring = True
        self._clock_began, self._cpu_began = time.perf_counter(), time.process_time()
        self._core_wait_began = _read_core_wait()

    def note_lag(self, seconds: float) -> None:
        """Count how late a request left, from when it was due and had a connection."""
        self._send_lags.append(seconds)

    def note_accepted(self, *, due: float, sent: float, now: float) -> None:
        """Count how long an accepted request took, since it was due and since it was sent."""
        self.report.accepted += 1
        self.report.ended = now
        self._due.append(due)
        self._latencies.append(now - due)
        self._service_times.append(now - sent)
        if len(self._due) >= BATCH:
            self._flush()

    def note_failed(self, kind: str, *, due: float, now: float) -> None:
        """Count a request as an error, and with the time since it was due: it waited that long."""
        report = self.report
        report.errors[kind] += 1
        interval = int((due - report.began) / self._interval_seconds)
        report.failures[min(interval, len(report.failures) - 1)] += 1
        self._due.append(due)
        self._latencies.append(now - due)

    def end(self) -> WorkerReport:
        """Count what is left, and take the processor time."""
        cpu_seconds = time.process_time() - self._cpu_began
        seconds, core_wait = time.perf_counter() - self._clock_began, _read_core_wait()
        self._flush()
        if self.is_measuring:
            self.report.cpu_seconds, self.report.cpu_share = cpu_seconds, cpu_seconds / seconds
            if core_wait is not None and self._core_wait_began is not None:
                self.report.core_wait_share = (core_wait - self._core_wait_began) / seconds
        return self.report

    def _clear(self) -> None:
        self._due, self._latencies = array("d"), array("d")
        self._service_times, self._send_lags = array("d"), array("d")

    def _flush(self) -> None:
        report = self.report
        count_by_interval(
            np.frombuffer(self._due) - report.began,
            np.frombuffer(self._latencies),
            into=report.latencies,
            interval_seconds=self._interval_seconds,
        )
        np.add.at(report.service_times, find_buckets(np.frombuffer(self._service_times)), 1)
        np.add.at(report.send_lags, find_buckets(np.frombuffer(self._send_lags)), 1)
        self._clear()


def _read_core_wait() -> float | None:
    """Read for how many seconds this process was ready to run and had no core; Linux only.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, second field of ``schedstat``.
    """
    file = Path("/proc/self/schedstat")
    try:
        return int(file.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None
