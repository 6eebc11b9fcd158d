import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

import loop_commands
from fraud_commands import app
from tests.stack.registry_world import ENCODING, FEATURES, add_version, save_small_artefact
from training.artefact import load_artefact
from training.mlflow_client import ENVIRONMENT, RegistryError
from training.promotion import set_alias, set_rollout
from training.registration import RunRecord, log_run
from training.registry import (
    find_artefact,
    find_tagged_version,
    find_version,
    get_champion,
    get_database_path,
    get_model,
    get_registration_time,
    get_tracking_uri,
)
from training.rollout import Rollout

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefact") / "any_name"
    save_small_artefact(folder)
    return folder


@pytest.fixture(scope="module")
def runs(artefact, tmp_path_factory):
    """A registry with two versions of one model; the first one is the champion."""
    runs = tmp_path_factory.mktemp("registry") / "runs"
    for _ in range(2):
        add_version(runs, artefact)
    set_alias(runs, "champion", version="1")
    return runs


@pytest.fixture
def client(runs):
    import mlflow

    uri = get_tracking_uri(runs)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def run_python(code, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    ).stdout.strip()


def test_importing_the_registry_makes_no_files_and_imports_no_mlflow(tmp_path):
    found = run_python(
        "import sys, training.promotion, training.registration, training.registry;"
        " print('mlflow' in sys.modules)",
        cwd=tmp_path,
    )

    assert found == "False"
    assert list(tmp_path.iterdir()) == []


def test_without_a_registry_there_is_no_champion_and_nothing_is_made(tmp_path):
    assert find_version(tmp_path, "champion") is None
    with pytest.raises(FileNotFoundError, match=r"no champion in .*; run `throughline"):
        get_champion(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_alias_that_points_nowhere_is_an_error_that_names_it(runs):
    with pytest.raises(FileNotFoundError, match="no challenger in"):
        get_model(runs, "challenger")


def test_the_champion_is_a_version_and_a_folder_that_loads(runs, artefact):
    version, folder = get_champion(runs)

    assert version == "1"
    np.testing.assert_array_equal(
        load_artefact(folder).predict(FEATURES), load_artefact(artefact).predict(FEATURES)
    )


def test_each_registered_model_is_the_next_version(client):
    versions = client.search_model_versions("name = 'fraud'")

    assert sorted(item.version for item in versions) == [1, 2]


def test_a_promotion_by_another_process_is_seen_at_once(runs, tmp_path):
    before = get_champion(runs)
    code = (
        "import sys; from pathlib import Path; from training.promotion import set_alias; "
        "set_alias(Path(sys.argv[1]), 'champion', version=sys.argv[2])"
    )

    run_python(code, runs, "2", cwd=tmp_path)
    after = get_champion(runs)
    set_alias(runs, "champion", version="1")

    assert (before[0], after[0], get_champion(runs)[0]) == ("1", "2", "1")
    assert before[1] != after[1]


def test_asking_for_the_champion_again_takes_less_than_a_millisecond(runs):
    get_champion(runs)
    started = time.process_time()

    for _ in range(200):
        get_champion(runs)

    assert (time.process_time() - started) / 200 < 1e-3


def test_a_run_keeps_what_it_was_made_of(client):
    run = client.get_run(client.get_model_version("fraud", "1").run_id)
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}

    assert run.info.status == "FINISHED"
    assert run.data.params == {"l2_penalty": "1.0", "data_hash": "0" * 64}
    assert run.data.metrics["average_precision"] == 0.6
    curve = client.get_metric_history(run.info.run_id, "valid_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 0.3), (1, 0.2), (2, 0.25)]
    assert run.data.tags["kind"] == "logistic_regression"
    assert kept == {"features.json", "pictures", "model"}


def test_a_run_that_could_not_be_written_is_marked_as_failed(runs, client, tmp_path):
    with pytest.raises(FileNotFoundError):
        log_run(
            runs,
            RunRecord(name="interrupted"),
            artefact=tmp_path / "nowhere",
            encoding=ENCODING,
        )

    (experiment,) = client.search_experiments(filter_string="name = 'fraud'")
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'interrupted'")
    assert run.info.status == "FAILED"


def test_nothing_in_the_registry_is_a_pickle(runs):
    files = [path for path in (runs / "mlflow").rglob("*") if path.is_file()]

    assert any(path.name == "MLmodel" for path in files)
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".pt", ".pth"}
        assert path.read_bytes()[:1] != b"\x80", path


def test_mlflow_itself_loads_the_model_where_throughline_is_not_installed(runs, tmp_path):
    code = (
        "import json, sys, mlflow, pandas as pd; mlflow.set_tracking_uri(sys.argv[1]); "
        "model = mlflow.pyfunc.load_model('models:/fraud@champion'); "
        "rows = pd.DataFrame({'amount': [5.0, 80.0], 'card_type': ['debit', 'gift']}); "
        "print(json.dumps(list(model.predict(rows))))"
    )
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": ""}

    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, get_tracking_uri(runs)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )

    expected = load_artefact(get_champion(runs)[1]).predict(FEATURES.head(2))
    np.testing.assert_allclose(json.loads(found.stdout), expected)


def test_mlflow_models_serve_answers_with_calibrated_scores(runs, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/fraud@champion", "-h", "127.0.0.1", "-p", str(port)]
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "MLFLOW_TRACKING_URI": get_tracking_uri(runs),
        # MLflow calls uvicorn by its name
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            answer = ask_when_ready(f"http://127.0.0.1:{port}", server)
        finally:
            server.terminate()
            server.wait(timeout=30)

    expected = load_artefact(get_champion(runs)[1]).predict(FEATURES.head(2))
    np.testing.assert_allclose(answer["predictions"], expected)


def ask_when_ready(address, server):
    rows = FEATURES.head(2).to_dict(orient="split", index=False)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return httpx.post(f"{address}/invocations", json={"dataframe_split": rows}).json()
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("mlflow models serve did not answer")


@pytest.fixture
def damaged(runs, tmp_path) -> Path:
    """A copy of the registry that has lost a table."""
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    find_version(copy, "champion")  # connected while it was whole, as a running loop is
    with sqlite3.connect(get_database_path(copy)) as connection:
        connection.execute("drop table model_version_tags")
        connection.execute("drop table registered_model_aliases")
    connection.close()
    return copy


@pytest.mark.parametrize(
    "ask",
    [
        get_champion,
        lambda runs: find_artefact(runs, "1"),
        lambda runs: find_tagged_version(runs, "trigger_key", "floor"),
        lambda runs: get_registration_time(runs, "1"),
        lambda runs: set_alias(runs, "champion", version="2"),
        lambda runs: set_rollout(runs, Rollout("2", "shadow", 0.0)),
    ],
    ids=["champion", "artefact", "tag", "time", "alias", "rollout"],
)
def test_what_mlflow_fails_at_is_an_error_of_ours_that_says_where_to_look(damaged, ask):
    with pytest.raises(RegistryError, match=f"is {get_database_path(damaged)} whole") as caught:
        ask(damaged)
    assert isinstance(caught.value, RuntimeError)
    assert "\n" not in str(caught.value)


def test_the_loop_outlives_a_registry_that_fails(damaged, monkeypatch):
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop_commands.time, "sleep", stop)
    asked = ["tick", "--runs", str(damaged), "--now", "clock", "--loop", "1"]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 130, answer.output
    assert "this tick failed, the loop goes on: " in answer.output
    assert str(get_database_path(damaged)) in answer.output
