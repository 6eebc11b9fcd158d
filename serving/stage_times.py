"""A service's ``/metrics`` become microseconds of a request by stage."""

from __future__ import annotations

import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serving.lane_metrics import PUBLISH_SECONDS

STAGE_SUM, ROWS_SUM = "throughline_stage_seconds_sum", "throughline_batch_rows_sum"


def read_stage_times(url: str) -> dict[str, float]:
    """Ask a service how long a request was in each stage, since it started.

    Args:
        url: Of our service, as ``http://127.0.0.1:3000``.

    Returns:
        As ``parse_stage_times``.
    """
    time.sleep(2 * PUBLISH_SECONDS)
    with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
        return parse_stage_times(client.get("/metrics").text)


def parse_stage_times(metrics: str) -> dict[str, float]:
    """Divide each stage's seconds by the transactions scored.

    Args:
        metrics: Prometheus' text.

    Returns:
        Microseconds per transaction by stage, those that took none left out; empty if nothing was
        scored. A batch's time is shared by its transactions, waiting for the store included.

    >>> parse_stage_times('''
    ... # TYPE throughline_stage_seconds histogram
    ... throughline_stage_seconds_sum{stage="model"} 0.5
    ... # TYPE throughline_batch_rows histogram
    ... throughline_batch_rows_sum 100000
    ... ''')
    {'model': 5.0}
    """
    seconds: dict[str, float] = {}
    rows = 0.0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == STAGE_SUM:
                stage = sample.labels["stage"]
                seconds[stage] = seconds.get(stage, 0.0) + sample.value
            elif sample.name == ROWS_SUM:
                rows += sample.value
    return {stage: 1e6 * taken / rows for stage, taken in seconds.items() if rows and taken}
