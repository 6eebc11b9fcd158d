"""The lane's metrics on the ``/metrics`` of a real ``bentoml serve`` with two workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.server import find_free_port

pytestmark = pytest.mark.stack
ROOT = Path(__file__).resolve().parents[2]
LATENCIES = [0.0005, 0.0015, 0.25]  # seconds; their sum is 0.252
SERVICE = """
import os
import bentoml
from serving.lane_metrics import LaneMetrics

@bentoml.service(workers=2, threads=1)
class Counting:
    def __init__(self) -> None:
        self.metrics = LaneMetrics()
        self.metrics.set_model("3")

    @bentoml.api(route="/count")
    def count(self, latencies: list[float]) -> int:
        self.metrics.count_request("score", "ok", len(latencies))
        self.metrics.observe_latencies(latencies)
        self.metrics.publish()
        return os.getpid()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("counting")
    (folder / "counting_service.py").write_text(SERVICE)
    port = find_free_port()
    address = ("--host", "127.0.0.1", "--port", str(port))
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "counting_service:Counting", *address],
            cwd=folder,
            env={
                **os.environ,
                "BENTOML_HOME": str(folder / "bentoml"),
                "BENTOML_DO_NOT_TRACK": "True",
                "PYTHONPATH": f"{ROOT}:{folder}",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("bentoml serve did not become ready")


def count(url: str) -> int | None:
    """Let one worker count, over a connection of its own; return its process, if it answered."""
    try:
        answer = httpx.post(
            f"{url}/count", json={"latencies": LATENCIES}, timeout=10, trust_env=False
        )
    except httpx.TransportError:  # the worker is being killed
        return None
    return int(answer.text)


def read_metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics", timeout=10, trust_env=False).text.splitlines()
    samples = [line.rpartition(" ") for line in lines if line.startswith("throughline_")]
    return {name: float(value) for name, _, value in samples}


def count_until(url: str, workers: set[int], *, num: int) -> int:
    """Count until ``num`` workers have; return how many times any did."""
    for times in range(1, 400):
        worker = count(url)
        if worker is not None:
            workers.add(worker)
        if len(workers) == num:
            return times
        time.sleep(0.05)
    raise AssertionError(f"{num} workers were expected, and {workers} answered")


def test_metrics_of_two_workers_are_added_up_on_bentoml_s_metrics_page(url):
    workers: set[int] = set()
    times = count_until(url, workers, num=2)

    shown = read_metrics(url)

    assert shown['throughline_requests_total{outcome="ok",route="score"}'] == 3 * times
    assert shown["throughline_request_seconds_count"] == 3 * times
    assert shown['throughline_request_seconds_bucket{le="0.0005"}'] == times
    assert shown['throughline_request_seconds_bucket{le="0.1"}'] == 2 * times
    assert shown["throughline_request_seconds_sum"] == pytest.approx(0.252 * times)
    assert shown['throughline_model_info{version="3"}'] == 2


def test_a_killed_worker_s_counts_stay_and_its_gauges_go_when_another_takes_its_place(url):
    workers: set[int] = set()
    count_until(url, workers, num=2)
    before = read_metrics(url)["throughline_request_seconds_count"]
    os.kill(min(workers), signal.SIGKILL)

    count_until(url, workers, num=3)

    shown = read_metrics(url)
    assert shown["throughline_request_seconds_count"] > before
    assert shown['throughline_model_info{version="3"}'] == 2
