"""What the lane counted in plain objects is what Prometheus shows; ``observe`` is the judge."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest, values

from serving import lane_metrics
from serving.bulk_histogram import BulkHistogram
from serving.lane_metrics import LaneMetrics, publish_repeatedly
from serving.lane_series import forget_dead_workers

BOUNDS = (0.25, 1.0, 2.0)


@pytest.fixture(scope="module", autouse=True)
def _own_values() -> Iterator[None]:
    """Keep values in this process and test: Feast, once imported, has all registries share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.MutexValue)
        yield


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> LaneMetrics:
    return LaneMetrics(registry=registry)


def show(registry: CollectorRegistry) -> list[str]:
    """Return the exposition's lines without the time each series began."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 1.5, 2.0, 2.25, 1024.0])), max_size=4
    )
)
def test_a_batch_of_observations_is_worth_as_many_single_ones(batches):
    one_by_one, at_once = CollectorRegistry(), CollectorRegistry()
    expected = Histogram("h", "a histogram", buckets=BOUNDS, registry=one_by_one)
    bulk = BulkHistogram(Histogram("h", "a histogram", buckets=BOUNDS, registry=at_once))
    for batch in batches:
        bulk.observe_many(np.array(batch))
        for value in batch:
            expected.observe(value)
    assert show(at_once) == show(one_by_one)


def test_workers_that_share_their_metrics_add_up_bulk_and_single_observations_alike(tmp_path):
    code = f"""
import sys
from prometheus_client import Histogram
from serving import lane_metrics
from serving.bulk_histogram import BulkHistogram
bulk = BulkHistogram(Histogram("bulk", "bulk", ["of"], buckets={BOUNDS}).labels("us"))
single = Histogram("single", "single", ["of"], buckets={BOUNDS}).labels("us")
values = [float(value) for value in sys.argv[1:]]
bulk.observe_many(values)
for value in values:
    single.observe(value)
"""
    for observed in (["0.25", "0.5", "4"], ["2.0", "2.0"]):
        run_worker(code, *observed, folder=tmp_path)
    shown = show_workers(tmp_path)
    bulk = [line for line in shown if line.startswith("bulk")]
    assert 'bulk_sum{of="us"} 8.75' in bulk
    assert [line.replace("bulk", "single", 1) for line in bulk] == [
        line for line in shown if line.startswith("single")
    ]


def run_worker(code: str, *arguments: str, folder: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True)


def show_workers(folder: Path) -> list[str]:
    """Return what all workers of a folder show together, as BentoML gathers it."""
    code = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry()\n"
        "multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in found.stdout.splitlines() if not line.startswith("#")]


def test_nothing_is_shown_before_it_is_published(metrics, registry):
    metrics.count_request("score", "ok")
    name = "throughline_requests_total"
    labels = {"route": "score", "outcome": "ok"}
    before = registry.get_sample_value(name, labels)
    metrics.publish()
    assert (before, registry.get_sample_value(name, labels)) == (0.0, 1.0)


def test_publishing_twice_counts_once(metrics, registry):
    metrics.count_request("score", "shed", 3)
    metrics.count_degraded("store_unavailable", 2)
    metrics.observe_latencies([0.001, 0.002])
    metrics.publish()
    once = show(registry)
    metrics.publish()
    assert show(registry) == once


def test_requests_are_counted_by_route_and_outcome(metrics, registry):
    metrics.count_request("score", "ok", 2)
    metrics.count_request("score", "ok")
    metrics.count_request("score_batch", "invalid")
    metrics.publish()
    shown = [line for line in show(registry) if line.startswith("throughline_requests_total")]
    assert {line for line in shown if not line.endswith(" 0.0")} == {
        'throughline_requests_total{outcome="ok",route="score"} 3.0',
        'throughline_requests_total{outcome="invalid",route="score_batch"} 1.0',
    }
    assert len(shown) == 2 * 7 + 2 * 5  # the others are there at 0: a rate has a start


def test_what_a_batch_took_is_shown_by_stage_rows_and_latency(metrics, registry):
    metrics.observe_stage("store", 0.0009)
    metrics.observe_stage("model", 0.0001)
    metrics.observe_batch(3)
    metrics.observe_latencies(np.array([0.0005, 0.0011, 0.0011]))
    metrics.observe_feature_ages([12.0])
    metrics.publish()
    value = registry.get_sample_value
    assert value("throughline_stage_seconds_sum", {"stage": "store"}) == 0.0009
    assert value("throughline_stage_seconds_bucket", {"stage": "model", "le": "0.0001"}) == 1
    assert value("throughline_stage_seconds_count", {"stage": "decode"}) == 0
    assert value("throughline_batch_rows_bucket", {"le": "2.0"}) == 0
    assert value("throughline_batch_rows_bucket", {"le": "4.0"}) == 1
    assert value("throughline_request_seconds_bucket", {"le": "0.001"}) == 1
    assert value("throughline_request_seconds_count") == 3
    assert value("throughline_feature_age_seconds_sum") == 12.0


def test_only_the_newest_model_is_shown_as_answering(metrics, registry):
    for version in ("3", "3", "4"):
        metrics.set_model(version)
    value = registry.get_sample_value
    assert value("throughline_model_info", {"version": "3"}) == 0
    assert value("throughline_model_info", {"version": "4"}) == 1


def test_the_logs_totals_are_taken_over_and_not_added_up(metrics, registry):
    metrics.set_log(written=10, pending=5, dropped=0)
    metrics.set_log(written=14, pending=1, dropped=2)
    value = registry.get_sample_value
    assert value("throughline_prediction_log_written_total") == 14
    assert value("throughline_prediction_log_dropped_total") == 2
    assert value("throughline_prediction_log_pending") == 1


def test_what_the_stream_got_and_lost_is_shown_as_totals(metrics, registry):
    metrics.set_published(10, dropped=1)
    metrics.set_published(13, dropped=4)
    value = registry.get_sample_value
    assert value("throughline_published_total") == 13
    assert value("throughline_publish_dropped_total") == 4


def test_a_breaker_is_shown_by_its_state_and_how_often_it_opened(metrics, registry):
    metrics.set_breaker("redis", state=2, num_opened=1)
    metrics.set_breaker("registry", state=0, num_opened=0)
    metrics.set_breaker("redis", state=1, num_opened=3)
    value = registry.get_sample_value
    assert value("throughline_breaker_state", {"dependency": "redis"}) == 1
    assert value("throughline_breaker_opened_total", {"dependency": "redis"}) == 3
    assert value("throughline_breaker_opened_total", {"dependency": "registry"}) == 0


def test_publishing_goes_on_after_it_failed_once(monkeypatch):
    monkeypatch.setattr(lane_metrics, "PUBLISH_SECONDS", 0.0)
    tried: list[int] = []

    def publish() -> None:
        tried.append(len(tried))
        if len(tried) == 1:
            raise OSError("no space left on device")

    async def serve() -> None:
        task = asyncio.create_task(publish_repeatedly(publish))
        async with asyncio.timeout(20):
            while len(tried) < 3 and not task.done():
                await asyncio.sleep(0)
        task.cancel()

    asyncio.run(serve())
    assert tried == [0, 1, 2]


def test_gauges_of_a_killed_worker_are_forgotten_and_those_of_a_living_one_kept(
    tmp_path, monkeypatch
):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    names = [f"gauge_livesum_{process}.db" for process in (killed.pid, os.getpid())]
    for name in (*names, f"counter_{killed.pid}.db"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    forget_dead_workers()
    assert {path.name for path in tmp_path.iterdir()} == {names[1], f"counter_{killed.pid}.db"}
