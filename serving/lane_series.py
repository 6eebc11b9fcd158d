"""The lane's metrics as ``prometheus_client`` keeps them: names, labels, buckets, and who adds up.

Importing this module imports ``prometheus_client``, which decides at that moment whether
processes share their metrics: BentoML's workers have ``PROMETHEUS_MULTIPROC_DIR`` by then (where
it is not set, importing Feast sets it).

Counters and histograms are added up over all workers that ever were; a gauge that is ``live``
counts only those that are there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

from serving.bulk_histogram import BulkHistogram

PREFIX = "throughline_"
ARMS = ("champion", "challenger", "shadow")
SCORED_OUTCOMES = ("ok", "degraded", "shed", "no_model", "failed")
OUTCOMES = (*SCORED_OUTCOMES, "invalid", "too_large")
ROUTES = {
    "score": OUTCOMES,
    "score_batch": OUTCOMES,
    "predict": SCORED_OUTCOMES,  # BentoML refuses what is invalid or too large before it is ours
    "predict_batch": SCORED_OUTCOMES,
}
STAGES = ("decode", "store", "features", "model", "record", "encode")

REQUEST_BOUNDS = (
    *(1e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 7.5e-3, 0.01, 0.015, 0.02, 0.03, 0.05),
    *(0.075, 0.1, 0.25, 0.5, 1.0, 2.5),
)
STAGE_BOUNDS = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.5),
)
ROWS_BOUNDS = tuple(2**power for power in range(11))
AGE_BOUNDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400, 604_800)


class LaneSeries:
    """Every metric of the lane; the series whose labels are known beforehand are there at 0.

    Args:
        registry: Where they are registered; each name once.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(_make_counter, registry)
        histogram = partial(_make_histogram, registry)
        gauge = partial(_make_gauge, registry)

        self.requests = counter("requests_total", "Requests answered.", "route", "outcome")
        for route, outcomes in ROUTES.items():
            for outcome in outcomes:
                self.requests.labels(route, outcome)
        self.latency = histogram(
            "request_seconds", "From a request's last byte to its answer.", REQUEST_BOUNDS
        )

        self.stages = _make_stages(registry)
        self.rows = histogram("batch_rows", "Transactions scored together.", ROWS_BOUNDS)
        self.age = histogram(
            "feature_age_seconds",
            "Age of the state that answered in the store's place.",
            AGE_BOUNDS,
        )

        self.arm_rows = counter(
            "rows_total", "Transactions scored, by the role of the model that did.", "arm"
        )
        for arm in ARMS:
            self.arm_rows.labels(arm)
        self.challenger_failures = counter(
            "challenger_failures_total",
            "Batches of a canary that the champion answered because the challenger failed.",
        )
        self.shadow_failed = counter(
            "shadow_failed_total", "Rows that the challenger could not score in the shadow."
        )
        self.shadow_dropped = counter(
            "shadow_dropped_total", "Rows that the challenger could not keep up with in the shadow."
        )
        self.degraded = counter(
            "degraded_total", "Answers given without part of their features.", "reason"
        )

        self.log_written = counter("prediction_log_written_total", "Prediction records on disk.")
        self.log_dropped = counter(
            "prediction_log_dropped_total", "Prediction records lost to a full queue or disk."
        )
        self.log_pending = gauge(
            "prediction_log_pending", "Prediction records that wait for the disk.", "livesum"
        )
        self.published = counter("published_total", "Scored transactions in the stream.")
        self.publish_dropped = counter(
            "publish_dropped_total", "Scored transactions lost to the stream."
        )

        self.model = gauge(
            "model_info",
            "Workers that answer with this version of the model.",
            "livesum",
            "version",
        )
        self.breaker = gauge(
            "breaker_state",
            "The worst of all workers: 0 closed, 1 half open, 2 open.",
            "livemax",
            "dependency",
        )
        self.breaker_opened = counter(
            "breaker_opened_total", "How often a breaker opened.", "dependency"
        )


def _make_counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    return Counter(PREFIX + name, text, labels, registry=registry)


def _make_histogram(
    registry: CollectorRegistry, name: str, text: str, bounds: Sequence[float]
) -> BulkHistogram:
    return BulkHistogram(Histogram(PREFIX + name, text, buckets=bounds, registry=registry))


def _make_stages(registry: CollectorRegistry) -> dict[str, BulkHistogram]:
    stages = Histogram(
        f"{PREFIX}stage_seconds",
        "How long a batch was in each stage.",
        ["stage"],
        buckets=STAGE_BOUNDS,
        registry=registry,
    )
    return {stage: BulkHistogram(stages.labels(stage)) for stage in STAGES}


def _make_gauge(
    registry: CollectorRegistry,
    name: str,
    text: str,
    over_workers: Literal["livesum", "livemax"],
    *labels: str,
) -> Gauge:
    return Gauge(PREFIX + name, text, labels, registry=registry, multiprocess_mode=over_workers)


def forget_dead_workers() -> None:
    """Remove the gauges of workers that were killed; those that end by themselves do it.

    A worker that is started in a killed one's place calls this, so that ``model_info`` counts
    only workers that are there.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return
    for path in Path(folder).glob("gauge_live*_*.db"):
        process = int(path.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(process)  # type: ignore[no-untyped-call]
        except PermissionError:  # it is there, and another user's
            continue
