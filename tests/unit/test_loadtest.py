"""The load stage as a whole, where no fraud service is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from configs.schema import FraudConfig, load_fraud_config
from serving.loadtest import run_load
from tests.unit.toy_server import ToyServer, render_answer
from throughline import app


@pytest.fixture
def config(tmp_path: Path) -> FraudConfig:
    pd.DataFrame(
        {
            "transaction_id": ["t1"],
            "event_time": pd.to_datetime(["2026-03-01T12:00:00Z"]),
            "customer_id": ["ann"],
            "amount": [12.5],
        }
    ).to_parquet(tmp_path / "transactions.parquet")
    changes = {
        "runs": str(tmp_path),
        "load.seconds": 1,
        "load.warm_up_seconds": 0.2,
        "load.num_connections": 2,
        "load.max_send_lag_ms": 1000,
    }
    return load_fraud_config(changes=changes)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    (tmp_path / "bodies.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    return tmp_path / "bodies.jsonl"


def change(config: FraudConfig, **load: object) -> FraudConfig:
    return config.model_copy(update={"load": config.load.model_copy(update=load)})


def test_a_load_test_of_nobody_says_what_to_start(config):
    with pytest.raises(ValueError, match="no fraud service answers at http://127"):
        run_load(config, url="http://127.0.0.1:9")


def test_any_service_on_this_machine_can_be_asked_with_bodies_of_ones_own(config, body):
    with ToyServer() as server:
        result = run_load(change(config, rate=50.0), url=server.url, path="/mine", body=body)
    assert set(server.bodies) == {b'{"a": 1}', b'{"a": 2}'}
    assert result["errors"] == 0
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]
    names = [Path(path).name for path in result["wrote"]]
    assert names == ["load.json", "latency.hgrm", "load.csv", "latency.svg", "load.html"]
    written = json.loads((config.runs / "load" / "load.json").read_text())
    assert written["requests"] == result["requests"] > 0
    assert {"cpu", "cores", "date"} <= set(written["environment"])


def test_a_host_that_was_named_is_loaded_by_every_worker_and_another_is_not(config, body):
    two = change(config, rate=50.0, processes=2)
    with ToyServer() as server:
        url = f"http://127.1:{server.port}"  # this machine too, but not by the rule for loopback
        with pytest.raises(ValueError, match="--allow-host names"):
            run_load(two, url=url, body=body, allow_hosts=["127.2"])
        assert server.bodies == []
        result = run_load(two, url=url, body=body, allow_hosts=["127.2", "127.1"])
    assert result["errors"] == 0
    assert result["requests"] > 20


def test_the_command_hands_the_hosts_it_may_load_on(config, monkeypatch):
    seen = []

    def note(_: FraudConfig, *, allow_hosts: list[str], **__: object) -> None:
        seen.extend(allow_hosts)
        raise ValueError("seen enough")

    monkeypatch.setattr("serving.loadtest.run_load", note)
    hosts = ["--allow-host", "staging", "--allow-host", "10.0.0.1"]
    CliRunner().invoke(app, ["fraud", "load", "--runs", str(config.runs), *hosts])
    assert seen == ["staging", "10.0.0.1"]


def test_the_help_says_that_loading_a_machine_of_others_is_an_attack():
    shown = CliRunner().invoke(app, ["fraud", "load", "--help"]).output
    assert "a machine that is not yours is an attack" in " ".join(shown.split())


def test_a_name_that_no_machine_has_is_the_users_mistake(config, body):
    with pytest.raises(ValueError, match=r"no machine is called 'absent\.invalid'"):
        run_load(config, url="http://absent.invalid", body=body, allow_hosts=["absent.invalid"])


def test_a_ladder_leaves_its_rungs_and_no_file_of_an_earlier_run(config, body):
    ladder = config.load.ladder.model_copy(
        update={"first_rate": 20.0, "rung_seconds": 0.5, "max_rungs": 2, "max_p99_ms": 1e4}
    )
    with ToyServer() as server:
        run_load(config, url=server.url, body=body)
        result = run_load(change(config, ladder=ladder), url=server.url, body=body, ladder=True)
    assert result["knee_qps"] == 32.0
    assert result["knee_is_a_lower_bound"]
    assert list(result["rungs"]) == ["20/s", "32/s"]
    assert not (config.runs / "load" / "latency.svg").exists()
    assert len(pd.read_csv(config.runs / "load" / "load.csv")) == 2


def test_a_soak_says_whether_latency_grew(config, body):
    soaked = change(config, rate=50.0, interval_seconds=0.02)
    with ToyServer() as server:
        result = run_load(soaked, url=server.url, body=body, soak_seconds=2.0)
    assert result["verdict"] in ("growth", "no growth")
    assert "memory" not in result
    assert sum(half["seconds"] for half in result["halves"].values()) == pytest.approx(2.0, abs=0.1)
    assert [Path(path).name for path in result["wrote"] if path.endswith(".svg")] == ["soak.svg"]
    series = pd.read_csv(config.runs / "load" / "load.csv")
    assert len(series) == pytest.approx(10, abs=1)
    assert series["requests"].sum() == result["requests"]


def test_a_service_that_sheds_is_no_error(config, body):
    with ToyServer(lambda _: render_answer(status="503 Service Unavailable")) as server:
        result = run_load(change(config, rate=20.0), url=server.url, body=body)
    assert result["errors"] == 0
    assert result["shed"] == result["requests"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"soak_seconds": 5.0}, "--soak needs --rate"),
        ({"ladder": True, "soak_seconds": 5.0}, "choose one"),
        ({"body": Path("absent")}, "--body goes with --url"),
        ({"body": Path("absent"), "url": "http://127.0.0.1:9"}, "no file at absent"),
        ({"url": "http://example.com"}, "only goes to this machine"),
        ({"allow_hosts": ["staging"]}, "--allow-host goes with --url"),
    ],
)
def test_arguments_that_do_not_go_together_are_told(config, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_load(config, **arguments)
