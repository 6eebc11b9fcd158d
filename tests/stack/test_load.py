"""`throughline fraud load` against the real fraud service, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from configs.files import read_json
from configs.schema import FraudConfig
from serving.loadtest import run_load
from tests.stack.stream_world import wait_until

pytestmark = pytest.mark.stack
ROOT = Path(__file__).resolve().parents[2]


def make_command(config: FraudConfig, tmp_path: Path, *arguments: str) -> list[str]:
    document = config.model_dump(mode="json")
    document["load"] |= {"num_requests": None, "seconds": 2, "warm_up_seconds": 0.5}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    chosen = ["--config", str(tmp_path / "config.yaml"), "--json", str(tmp_path / "result.json")]
    return [sys.executable, "-m", "throughline", "fraud", "load", *chosen, *arguments]


def make_slow(config: FraudConfig) -> FraudConfig:
    """Ask so seldom that a busy machine answers with the store."""
    changes = {"rate": 30.0, "num_requests": 60, "seconds": 10.0, "max_send_lag_ms": 1000.0}
    return config.model_copy(update={"load": config.load.model_copy(update=changes)})


def test_an_open_loop_agrees_with_the_typed_lane_answer_by_answer(tiny_world, url):
    result = run_load(make_slow(tiny_world), url=url, expect=True)
    assert (result["requests"], result["errors"], result["degraded"]) == (60, 0, 0)
    assert result["compared_with_typed_lane"] == 60
    assert result["model_versions"] == {"1": 60}


def test_an_answer_other_than_the_typed_lanes_is_an_error(tiny_world, url, monkeypatch):
    from serving import load_target

    real = load_target.ask_expected
    monkeypatch.setattr(
        load_target,
        "ask_expected",
        lambda *args: [answer._replace(score=answer.score + 0.1) for answer in real(*args)],
    )
    result = run_load(make_slow(tiny_world), url=url, expect=True)
    assert result["errors_by_kind"] == {"other than expected": 60}


def test_a_run_that_is_not_valid_exits_with_1_after_writing_its_files(tiny_world, url, tmp_path):
    late = ["--set", "load.max_send_lag_ms=0.000001"]
    command = make_command(tiny_world, tmp_path, "--url", url, "--rate", "20", *late)
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 1, finished.stderr
    result = read_json(tmp_path / "result.json")
    assert result["valid"] is False
    assert "generator's own fault" in result["why"][0]
    assert all(Path(path).is_file() for path in result["wrote"])


def test_ctrl_c_writes_what_there_is_and_says_so(tiny_world, url, tmp_path):
    command = make_command(tiny_world, tmp_path, "--url", url, "--rate", "20", "--seconds", "120")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    before = count_scored(url)
    wait_until(lambda: count_scored(url) > before + 40)  # two seconds of load
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: to every process of the group
    assert process.wait(60) == 130
    process.stderr.close()
    result = read_json(tmp_path / "result.json")
    assert result["interrupted"] is True
    assert result["requests"] > 0
    assert result["errors"] == 0


def count_scored(url: str) -> int:
    state = httpx.get(f"{url}/model", timeout=10, trust_env=False).json()
    return int(state["transactions"]["scored"])


def test_a_soak_sees_the_services_memory(tiny_world, url):
    changes = {"rate": 20.0, "num_requests": None, "interval_seconds": 0.05}
    config = tiny_world.model_copy(update={"load": tiny_world.load.model_copy(update=changes)})
    result = run_load(config, url=url, soak_seconds=5.0)
    assert result["verdict"] in ("growth", "no growth")
    assert result["memory"]["verdict"] in ("growth", "no growth")
