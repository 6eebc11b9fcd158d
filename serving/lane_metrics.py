"""What the fast lane did becomes Prometheus metrics, at less than a microsecond a request.

Requests are counted in plain Python objects; a few times a second ``publish`` moves what has
gathered into ``prometheus_client``, whose values BentoML shows on ``/metrics``, added up over all
workers. What a worker has not published when it is killed is missing from the counts.

=============================================  ====================================================
metric, each begins with ``throughline_``      what it says
=============================================  ====================================================
``requests_total{route, outcome}``             requests answered, by ``OUTCOMES``
``request_seconds``                            from a request's last byte to its answer
``stage_seconds{stage}``                       how long a batch was in each of ``STAGES``
``batch_rows``                                 transactions scored together
``feature_age_seconds``                        age of the state that answered when the store did not
``rows_total{arm}``                            transactions scored, by the role of the model
``challenger_failures_total``                  batches of a canary left to the champion by an error
``shadow_{failed,dropped}_total``              rows the shadow failed at, or could not keep up with
``degraded_total{reason}``                     answers given without part of their features
``prediction_log_{written,dropped}_total``     records on disk, and lost to a full queue or disk
``prediction_log_pending``                     records that wait for the disk
``published_total``                            scored transactions in the stream
``publish_dropped_total``                      scored transactions lost to the stream
``model_info{version}``                        workers that answer with this version
``breaker_state{dependency}``                  the worst worker's: 0 closed, 1 half open, 2 open
``breaker_opened_total{dependency}``           how often a breaker opened
=============================================  ====================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from serving.bulk_histogram import BulkHistogram
from serving.lane_series import STAGES, LaneSeries, forget_dead_workers

PUBLISH_SECONDS = 0.25


class LaneMetrics:
    """Count what one worker's lane does; used by one event loop.

    Args:
        registry: Where the metrics are registered; one ``LaneMetrics`` for each.
    """

    def __init__(self, *, registry: CollectorRegistry = REGISTRY) -> None:
        forget_dead_workers()
        self._requests: dict[tuple[str, str], int] = {}
        self._degraded: dict[str, int] = {}
        self._arm_rows: dict[str, int] = {}
        self._challenger_failures = 0
        self._latencies: list[float] = []
        self._stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._rows: list[float] = []
        self._ages: list[float] = []
        self._version: str | None = None
        self._totals: dict[str, int] = {}
        self._series = LaneSeries(registry)

    def count_request(self, route: str, outcome: str, num: int = 1) -> None:
        """Count answered requests of one of ``ROUTES``, with one of ``OUTCOMES``."""
        key = (route, outcome)
        self._requests[key] = self._requests.get(key, 0) + num

    def count_degraded(self, reason: str, num: int = 1) -> None:
        """Count answers given without part of their features; reasons must be few."""
        self._degraded[reason] = self._degraded.get(reason, 0) + num

    def count_rows(self, arm: str, num: int) -> None:
        """Count transactions that one of the arms has answered."""
        self._arm_rows[arm] = self._arm_rows.get(arm, 0) + num

    def count_challenger_failure(self) -> None:
        """Count a batch that the champion answered because the challenger failed."""
        self._challenger_failures += 1

    def observe_latencies(self, seconds: Iterable[float]) -> None:
        """Note how long each request of a batch took; a list is taken fastest."""
        self._latencies.extend(seconds)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Note how long a batch was in one of ``STAGES``."""
        self._stages[stage].append(seconds)

    def observe_batch(self, rows: int) -> None:
        """Note how many transactions were scored together."""
        self._rows.append(rows)

    def observe_feature_ages(self, seconds: Iterable[float]) -> None:
        """Note how old each state was that answered in the store's place."""
        self._ages.extend(seconds)

    def set_model(self, version: str) -> None:
        """Say which model answers from now on."""
        if version != self._version:
            if self._version is not None:
                self._series.model.labels(self._version).set(0)
            self._series.model.labels(version).set(1)
            self._version = version

    def set_log(self, *, written: int, pending: int, dropped: int) -> None:
        """Say how the prediction log is doing, in records since the process started."""
        self._raise_to(written, self._series.log_written, name="written")
        self._raise_to(dropped, self._series.log_dropped, name="dropped")
        self._series.log_pending.set(pending)

    def set_shadow(self, scored: int, *, failed: int, dropped: int) -> None:
        """Say how many rows were scored in the shadow, and how many could not be, so far."""
        self._raise_to(scored, self._series.arm_rows.labels("shadow"), name="shadow")
        self._raise_to(failed, self._series.shadow_failed, name="shadow failed")
        self._raise_to(dropped, self._series.shadow_dropped, name="shadow dropped")

    def set_published(self, published: int, *, dropped: int) -> None:
        """Say how many scored transactions the stream has got, and lost, since the start."""
        self._raise_to(published, self._series.published, name="published")
        self._raise_to(dropped, self._series.publish_dropped, name="publish dropped")

    def set_breaker(self, dependency: str, *, state: int, num_opened: int) -> None:
        """Say what a breaker does, and how often it has opened since the process started."""
        self._series.breaker.labels(dependency).set(state)
        opened = self._series.breaker_opened.labels(dependency)
        self._raise_to(num_opened, opened, name=f"opened {dependency}")

    def publish(self) -> None:
        """Move what has gathered to ``/metrics``."""
        series = self._series
        for (route, outcome), num in self._requests.items():
            series.requests.labels(route, outcome).inc(num)
        for reason, num in self._degraded.items():
            series.degraded.labels(reason).inc(num)
        for arm, num in self._arm_rows.items():
            series.arm_rows.labels(arm).inc(num)
        series.challenger_failures.inc(self._challenger_failures)
        self._requests.clear()
        self._degraded.clear()
        self._arm_rows.clear()
        self._challenger_failures = 0
        _move(self._latencies, series.latency)
        _move(self._rows, series.rows)
        _move(self._ages, series.age)
        for stage, seconds in self._stages.items():
            _move(seconds, series.stages[stage])

    async def publish_repeatedly(self) -> None:
        """Publish every ``PUBLISH_SECONDS`` until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(PUBLISH_SECONDS)
                self.publish()
        finally:
            self.publish()

    def _raise_to(self, total: int, counter: Counter, *, name: str) -> None:
        """Bring a counter up to a total that somebody else keeps."""
        counter.inc(total - self._totals.get(name, 0))
        self._totals[name] = total


def _move(values: list[float], histogram: BulkHistogram) -> None:
    histogram.observe_many(values)
    values.clear()
