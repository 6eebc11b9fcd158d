"""The status of real folders: a registry, an audit, reports, a service, each there or not."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from configs.files import write_json
from configs.schema import load_fraud_config
from monitoring.status import run_status
from serving.champion_changes import roll_back_champion, swap_champion
from serving.server import find_free_port, get_service_folder
from tests.stack.registry_world import add_version, save_small_artefact
from training.promotion import set_alias, set_rollout
from training.registry import CHAMPION, get_registration_time
from training.rollout import Rollout

pytestmark = pytest.mark.stack

REPORT = {
    "now": "2026-04-05T00:00:00+00:00",
    "champion": {"name": "logistic_regression", "version": "1"},
    "quality": {"findings": []},
    "drift": {"detected": True, "reason": "4 of 28 features drifted", "features": ["amount_log"]},
    "performance": {
        "is_degraded": False,
        "reason": "as expected",
        "average_precision": 0.6,
        "average_precision_interval": [0.5, 0.7],
        "expected_average_precision": 0.65,
        "immature_share": 0.4,
        "num_predictions": 100,
        "num_matured": 60,
        "num_frauds": 30,
    },
    "decision": {"action": "retrain", "reasons": ["4 of 28 features drifted"]},
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Path:
    """Two versions that load, the first of them champion."""
    runs = tmp_path_factory.mktemp("status") / "runs"
    save_small_artefact(runs.parent / "artefact")
    for _ in range(2):
        add_version(runs, runs.parent / "artefact")
    set_alias(runs, CHAMPION, version="1")
    return runs


@pytest.fixture
def config(registry):
    yield load_fraud_config(changes={"runs": str(registry), "serving.port": find_free_port()})
    set_rollout(registry, None)
    set_alias(registry, CHAMPION, version="1")


def test_without_a_champion_it_says_what_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="throughline fraud train"):
        run_status(load_fraud_config(changes={"runs": str(tmp_path)}))


def test_what_is_missing_is_noted_with_what_would_bring_it(config):
    notes = " ".join(run_status(config)["notes"])
    for command in (
        "throughline fraud tick",
        "throughline fraud serve",
        "throughline fraud monitor",
    ):
        assert command in notes


def test_a_champion_that_nobody_moved_serves_since_it_was_registered(config):
    since = run_status(config)["champion"]["since"]
    assert since == get_registration_time(config.runs, "1").isoformat()


def test_a_champion_serves_since_the_audits_last_change_to_it(config):
    folder = get_service_folder(config.runs)
    place = {"folder": folder, "who": "ann"}
    swap_champion(config.runs, version="2", **place)
    roll_back_champion(config.runs, **place)
    last = json.loads((folder / "admin.jsonl").read_text().splitlines()[-1])
    champion = run_status(config)["champion"]
    assert (champion["version"], champion["since"]) == ("1", last["time"])


def test_a_rollout_under_way_is_named(config):
    set_rollout(config.runs, Rollout("2", "canary", 0.25))
    assert run_status(config)["rollout"] == {"version": "2", "stage": "canary", "share": 0.25}


def test_a_report_gives_alarms_metrics_and_the_page(config, tmp_path):
    write_json(config.runs / "monitoring" / "20260405" / "monitor.json", REPORT)
    status = run_status(config, html=tmp_path / "status.html")
    assert [alarm["name"] for alarm in status["alarms"]] == ["drift"]
    assert status["performance"]["average_precision_interval"] == [0.5, 0.7]
    assert "0.500 to 0.700" in (tmp_path / "status.html").read_text()
    json.dumps(status, allow_nan=False)


def test_a_service_that_answers_with_another_version_is_pointed_out(config):
    answer = {"model_version": "9", "refused": None, "breaker": "closed"}
    body = json.dumps({**answer, "transactions": {}, "prediction_log": {}}).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        serving = config.serving.model_copy(update={"port": server.server_port})
        status = run_status(config.model_copy(update={"serving": serving}))
    assert status["service"]["answers"]
    assert any("version 9, not the champion 1" in note for note in status["notes"])


def test_looking_makes_no_file(config):
    before = sorted(path for path in config.runs.rglob("*") if "mlflow" not in path.parts)
    run_status(config)
    after = sorted(path for path in config.runs.rglob("*") if "mlflow" not in path.parts)
    assert after == before
