"""What the workers counted becomes one result, which says itself whether to believe it.

A generator that was the bottleneck has measured itself: ``why`` holds what speaks for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from hdrh.histogram import HdrHistogram

from serving.load_histogram import NUM_BUCKETS, Counts, build_histogram
from serving.load_plan import WorkerReport

MAX_CPU_SHARE = 0.9
MAX_SEND_LAG_MS = 5.0


@dataclass(frozen=True)
class LoadResult:
    """What a load run saw after its warm-up. Histograms are HDR, in microseconds.

    Attributes:
        requests: How many were due; each was then accepted, shed (503) or an error.
        accepted: How many were answered well.
        offered_qps: Requests due a second; None in a closed loop.
        qps: Accepted requests a second, until the last answer.
        seconds: From the end of the warm-up to the last answer.
        latencies: Of all requests but those shed, from when they were due (in a closed loop: sent)
            until they were answered or failed.
        service_times: The same from the real send on, accepted ones only.
        send_lags: How late requests left that could have left: the generator's own delay.
        interval_seconds: Length of an interval.
        intervals: ``latencies`` by interval of the due time; ``(intervals, buckets)`` counts.
        failures: How many of them failed, by interval.
        waited: How many were due when every connection was busy.
        tallies: What the check counted.
        cpu_share: Largest share of a core that one generator process used.
        core_wait_share: Largest share of the time that one was ready and had no core, or None.
        why: What makes the result doubtful, empty if nothing does.
        interrupted: Whether it was ended early.
    """

    requests: int
    accepted: int
    shed: int
    errors: Counter[str]
    waited: int
    reconnects: int
    offered_qps: float | None
    qps: float
    seconds: float
    latencies: HdrHistogram
    service_times: HdrHistogram
    send_lags: HdrHistogram
    interval_seconds: float
    intervals: Counts
    failures: Counts
    tallies: dict[str, Counter[str]]
    generator_cpu_seconds: float
    cpu_share: float
    core_wait_share: float | None
    why: tuple[str, ...] = field(default=())
    interrupted: bool = False

    @property
    def valid(self) -> bool:
        """Whether the service was measured and not the generator."""
        return not self.why


def merge_reports(
    reports: Sequence[WorkerReport],
    *,
    offered_qps: float | None,
    interval_seconds: float,
    max_send_lag_ms: float,
    interrupted: bool = False,
) -> LoadResult:
    """Add the workers' counts up, and say whether to believe them."""
    errors: Counter[str] = Counter()
    tallies: dict[str, Counter[str]] = {}
    for report in reports:
        errors.update(report.errors)
        for subject, tally in report.tallies.items():
            tallies.setdefault(subject, Counter()).update(tally)
    accepted = sum(report.accepted for report in reports)
    seconds = max(report.ended for report in reports) - reports[0].began
    send_lags = build_histogram(sum_counts([report.send_lags for report in reports]))
    intervals = np.sum([report.latencies for report in reports], axis=0)
    waits = [report.core_wait_share for report in reports if report.core_wait_share is not None]
    cpu_share = max(report.cpu_share for report in reports)
    return LoadResult(
        requests=sum(report.requests for report in reports),
        accepted=accepted,
        shed=sum(report.shed for report in reports),
        errors=errors,
        waited=sum(report.waited for report in reports),
        reconnects=sum(report.reconnects for report in reports),
        offered_qps=offered_qps,
        qps=accepted / seconds if seconds > 0 else 0.0,
        seconds=seconds,
        latencies=build_histogram(intervals.sum(axis=0)),
        service_times=build_histogram(sum_counts([report.service_times for report in reports])),
        send_lags=send_lags,
        interval_seconds=interval_seconds,
        intervals=intervals,
        failures=np.sum([report.failures for report in reports], axis=0),
        tallies=tallies,
        generator_cpu_seconds=sum(report.cpu_seconds for report in reports),
        cpu_share=cpu_share,
        core_wait_share=max(waits, default=None),
        why=tuple(judge_generator(cpu_share, send_lags, max_send_lag_ms=max_send_lag_ms)),
        interrupted=interrupted,
    )


def sum_counts(counts: Sequence[Counts]) -> Counts:
    """Add histograms' counts up."""
    total: Counts = np.sum(counts, axis=0)
    assert total.shape == (NUM_BUCKETS,)
    return total


def judge_generator(
    cpu_share: float, send_lags: HdrHistogram, *, max_send_lag_ms: float
) -> Iterator[str]:
    """Say why the generator itself may have been the bottleneck, if it may.

    Args:
        cpu_share: The busiest process's share of one core.
        send_lags: How late requests left that could have left, microseconds.
        max_send_lag_ms: What their 99th percentile may be.
    """
    if cpu_share > MAX_CPU_SHARE:
        yield (
            f"a generator process used {cpu_share:.0%} of a core, above {MAX_CPU_SHARE:.0%}: "
            "give it more --processes, or ask for less"
        )
    lag_ms = send_lags.get_value_at_percentile(99.0) / 1e3
    if lag_ms > max_send_lag_ms:
        yield (
            f"requests left late by the generator's own fault: p99 {lag_ms:.1f} ms, "
            f"above {max_send_lag_ms:g} ms; the cores are too busy for this rate"
        )
