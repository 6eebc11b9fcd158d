"""Evidently's user interface over reports, as a person starts it, looks at it and ends it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from configs.files import write_json
from monitoring.evidently_workspace import add_report
from serving.server import find_free_port
from tests.model.test_evidently_workspace import REPORT

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "throughline", "monitor", "ui"]


def write_report(runs: Path, name: str) -> Path:
    write_json(runs / "monitoring" / name / "monitor.json", REPORT)
    return runs / "monitoring" / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ui") / "runs"
    write_report(folder, "20260405")
    return folder


@pytest.fixture(scope="module")
def shown(runs):
    """The interface's process, listening on a port of its own, and a client of it."""
    port = find_free_port()
    with subprocess.Popen(
        [*COMMAND, f"--runs={runs}", f"--port={port}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield process, client
        process.kill()


def get_runs(client: httpx.Client) -> list[dict]:
    (project,) = client.get("/api/projects").raise_for_status().json()
    return client.get(f"/api/projects/{project['id']}/reports").raise_for_status().json()


def test_the_reports_are_there_before_it_says_its_address(shown):
    _, client = shown
    assert [run["name"] for run in get_runs(client)] == ["20260405"]


def test_it_takes_nothing_from_a_page_that_wants_to_delete(shown):
    _, client = shown
    (project,) = client.get("/api/projects").json()
    assert client.delete(f"/api/projects/{project['id']}").status_code == 403
    assert len(client.get("/api/projects").json()) == 1


def test_a_report_made_meanwhile_appears_by_itself(shown, runs):
    _, client = shown
    before = len(get_runs(client))
    add_report(write_report(runs, "20260406"), problem="fraud")
    deadline = time.monotonic() + 20
    while len(get_runs(client)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_ctrl_c_ends_it_with_the_next_step(shown):
    process, _ = shown
    process.send_signal(signal.SIGTERM)  # as Ctrl-C: background processes may ignore SIGINT
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "next:  throughline fraud status" in output


def test_without_a_report_it_says_what_makes_one(tmp_path):
    finished = subprocess.run(
        [*COMMAND, f"--runs={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert f"throughline fraud monitor --runs {tmp_path}" in finished.stderr
