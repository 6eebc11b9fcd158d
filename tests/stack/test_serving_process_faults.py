"""What is answered and recorded when a worker dies, the service is stopped, or a model is bad."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from configs.schema import FraudConfig
from serving.decisions import STALE
from serving.load_messages import render_bodies
from serving.load_plan import Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.load_worker import CLOSED, LATE, NEVER_SENT, REFUSED
from serving.prediction_log import get_prediction_folder, load_predictions
from tests.stack.fault_check import FaultCheck
from tests.stack.served_world import ServedWorld, ask, load_through, serve_world
from tests.stack.stream_world import wait_until
from training.artefact import load_artefact
from training.promotion import set_alias
from training.registration import RunRecord, log_run, register
from training.registry import ARTEFACT_FOLDER, CHAMPION, find_artefact, get_champion

pytestmark = pytest.mark.stack
UNANSWERED = {CLOSED, LATE, NEVER_SENT, REFUSED}
"""What a client sees of a service that is not there; anything else is a wrong answer."""


def load_ids(world: ServedWorld, prefix: str) -> list[str]:
    predictions, _ = load_predictions(get_prediction_folder(world.config.runs))
    ids = predictions["transaction_id"]
    return sorted(ids[ids.str.startswith(prefix)])


def add_damaged_version(world: ServedWorld, folder: Path) -> str:
    """Register the champion once more, with its model's file cut short; return its version."""
    runs = world.config.runs
    _, source = get_champion(runs)
    shutil.copytree(source, folder / ARTEFACT_FOLDER)
    run_id = log_run(
        runs,
        RunRecord(name="damaged"),
        artefact=folder / ARTEFACT_FOLDER,
        encoding=load_artefact(source).spec.encoding,
    )
    version = register(runs, run_id)
    model = find_artefact(runs, version) / "model.txt"
    os.truncate(model, model.stat().st_size // 2)
    return version


def test_a_truncated_champion_is_refused_under_load_and_the_old_one_answers_all(
    served_world, tmp_path
):
    runs = served_world.config.runs
    version, _ = get_champion(runs)
    damaged = add_damaged_version(served_world, tmp_path)
    seen: list[dict[str, str] | None] = []

    def take_back() -> None:
        wait_until(lambda: served_world.get_state()["refused"] is not None)
        seen.append(served_world.get_state()["refused"])
        set_alias(runs, CHAMPION, version=version)

    run = load_through(
        served_world,
        begin=lambda: set_alias(runs, CHAMPION, version=damaged),
        end=take_back,
    )
    assert seen[0] is not None
    assert seen[0]["version"] == damaged
    assert "model.txt has changed" in seen[0]["reason"]
    assert run.result.errors == {}
    assert run.result.tallies["model_version"].keys() == {version}
    wait_until(lambda: served_world.get_state()["refused"] is None)


def test_a_killed_worker_is_replaced_and_what_it_had_flushed_is_there(
    served_world, record_property
):
    worker = served_world.get_state()["worker"]
    mine = [
        {**row, "transaction_id": f"flushed-{i}"} for i, row in enumerate(served_world.messages)
    ]
    assert len(ask(served_world.url, mine)) == len(mine)
    wait_until(lambda: served_world.get_state()["prediction_log"]["pending"] == 0)
    killed: list[float] = []

    def kill() -> None:
        os.kill(worker, signal.SIGKILL)
        killed.append(time.monotonic())

    def wait_for_another() -> None:
        wait_until(served_world.is_whole, seconds=150)  # BentoML looks every ten seconds
        record_property("recovery_seconds", round(time.monotonic() - killed[0], 1))

    run = load_through(served_world, begin=kill, end=wait_for_another, after_seconds=1.0)
    assert run.result.errors.keys() <= UNANSWERED
    assert run.count("whole", first=0, last=run.begun) > 0
    assert served_world.get_state()["worker"] != worker
    assert load_ids(served_world, "flushed-") == sorted(row["transaction_id"] for row in mine)
    again = [{**row, "transaction_id": f"again-{i}"} for i, row in enumerate(mine)]
    ask(served_world.url, again)
    wait_until(lambda: len(load_ids(served_world, "again-")) == len(again))


def test_a_service_stopped_under_load_answers_and_records_whatever_it_took(
    tiny_world: FraudConfig, tmp_path
):
    prefix = f"drain-{time.time_ns()}-"
    results: list[LoadResult] = []
    with ExitStack() as stack:
        # What is let through to learn from is not what is expected of its message.
        changes = {"log_flush_seconds": 3600.0, "explore_share": 0.0}
        world = stack.enter_context(serve_world(tiny_world, tmp_path, **changes))

        def load() -> None:
            results.append(
                measure_load(
                    Target(world.url, "/v1/score"),
                    render_bodies(world.messages, path="/v1/score", id_prefix=prefix),
                    rate=300.0,
                    connections=32,
                    seconds=8.0,
                    warm_up_seconds=0.0,
                    timeout_seconds=5.0,
                    check=FaultCheck(id_prefix=prefix, expected=world.expected, stale=STALE),
                )
            )

        thread = threading.Thread(target=load)
        thread.start()
        wait_until(lambda: world.get_state()["transactions"]["scored"] > 300)
        stack.close()  # SIGTERM to the service, in the middle of the load
    thread.join()
    (result,) = results
    answered = sorted(prefix + serial for serial in result.tallies["answered"])
    assert result.errors.keys() <= UNANSWERED
    assert 300 - len(world.messages) < len(answered) < result.requests
    assert load_ids(world, prefix) == answered
