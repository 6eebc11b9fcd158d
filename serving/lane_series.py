"""The lane's metrics as ``prometheus_client`` keeps them: names, labels, buckets, and who adds up.

Importing this module imports ``prometheus_client``, which decides at that moment whether
processes share their metrics: BentoML's workers have ``PROMETHEUS_MULTIPROC_DIR`` by then (where
it is not set, importing Feast sets it).

Counters and histograms are added up over all workers that ever were; a gauge that is ``live``
counts only those that are there.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

from serving.bulk_histogram import BulkHistogram

ROUTES = ("score", "score_batch")
OUTCOMES = ("ok", "degraded", "shed", "invalid", "too_large", "no_model", "failed")
ARMS = ("champion", "challenger", "shadow")
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
        requests = Counter(
            "throughline_requests_total",
            "Requests answered by the fast lane.",
            ["route", "outcome"],
            registry=registry,
        )
        for route in ROUTES:
            for outcome in OUTCOMES:
                requests.labels(route, outcome)
        self.requests = requests
        self.latency = BulkHistogram(
            Histogram(
                "throughline_request_seconds",
                "From a request's last byte to its answer.",
                buckets=REQUEST_BOUNDS,
                registry=registry,
            )
        )
        stages = Histogram(
            "throughline_stage_seconds",
            "How long a batch was in each stage.",
            ["stage"],
            buckets=STAGE_BOUNDS,
            registry=registry,
        )
        self.stages = {stage: BulkHistogram(stages.labels(stage)) for stage in STAGES}
        self.rows = BulkHistogram(
            Histogram(
                "throughline_batch_rows",
                "Transactions scored together.",
                buckets=ROWS_BOUNDS,
                registry=registry,
            )
        )
        self.age = BulkHistogram(
            Histogram(
                "throughline_feature_age_seconds",
                "Age of the state that answered in the store's place.",
                buckets=AGE_BOUNDS,
                registry=registry,
            )
        )
        self.arm_rows = Counter(
            "throughline_rows_total",
            "Transactions scored, by the role of the model that did.",
            ["arm"],
            registry=registry,
        )
        for arm in ARMS:
            self.arm_rows.labels(arm)
        self.challenger_failures = Counter(
            "throughline_challenger_failures_total",
            "Batches of a canary that the champion answered because the challenger failed.",
            registry=registry,
        )
        self.shadow_failed = Counter(
            "throughline_shadow_failed_total",
            "Rows that the challenger could not score in the shadow.",
            registry=registry,
        )
        self.shadow_dropped = Counter(
            "throughline_shadow_dropped_total",
            "Rows that the challenger could not keep up with in the shadow.",
            registry=registry,
        )
        self.degraded = Counter(
            "throughline_degraded_total",
            "Answers given without part of their features.",
            ["reason"],
            registry=registry,
        )
        self.log_written = Counter(
            "throughline_prediction_log_written_total",
            "Prediction records on disk.",
            registry=registry,
        )
        self.log_dropped = Counter(
            "throughline_prediction_log_dropped_total",
            "Prediction records lost to a full queue or disk.",
            registry=registry,
        )
        self.log_pending = Gauge(
            "throughline_prediction_log_pending",
            "Prediction records that wait for the disk.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.published = Counter(
            "throughline_published_total",
            "Scored transactions in the stream.",
            registry=registry,
        )
        self.publish_dropped = Counter(
            "throughline_publish_dropped_total",
            "Scored transactions lost to the stream.",
            registry=registry,
        )
        self.model = Gauge(
            "throughline_model_info",
            "Workers that answer with this version of the model.",
            ["version"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.breaker = Gauge(
            "throughline_breaker_state",
            "The worst of all workers: 0 closed, 1 half open, 2 open.",
            ["dependency"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.breaker_opened = Counter(
            "throughline_breaker_opened_total",
            "How often a breaker opened.",
            ["dependency"],
            registry=registry,
        )


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
