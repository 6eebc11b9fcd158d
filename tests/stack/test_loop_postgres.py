"""The loop on a real PostgreSQL, as the stack profile has it."""

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from sqlalchemy import func, select

from monitoring.loop_tables import open_database, ticks
from serving.server import SOURCE_FOLDER, find_free_port, start_service
from tests.stack.served_world import ask
from tests.stack.stream_world import wait_until
from tests.unit.loop_world import LoopWorld, make_config

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def database_url():
    """A server of the test's own, on a free loopback port, in a folder of its own."""
    pytest.importorskip("psycopg")
    with start_postgres() as url:
        yield url


@contextmanager
def start_postgres():
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("postgres is not installed")
    tools, folder = Path(found).resolve().parent, Path(tempfile.mkdtemp(prefix="postgres"))
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and pytest's folders are root's
        users = {item.pw_name for item in pwd.getpwall()}
        user = "postgres" if "postgres" in users else "nobody"
        as_user = ["runuser", "-u", user, "--"]
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, log = folder / "data", folder / "log"

    def run(*command: object) -> None:
        with (folder / "output").open("ab") as output:  # a server keeps what it is given open
            subprocess.run(
                [*as_user, *map(str, command)], check=True, cwd=folder, stdout=output, stderr=output
            )

    run(tools / "initdb", "-D", data, "-U", "loop", "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    run(tools / "pg_ctl", "-D", data, "-w", "-o", options, "-l", log, "start")
    yield f"postgresql+psycopg://loop@127.0.0.1:{port}/postgres"
    run(tools / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
    shutil.rmtree(folder)


def test_a_challenger_goes_through_every_stage_in_postgresql(database_url, tmp_path):
    world = LoopWorld(make_config(tmp_path, retraining__database_url=database_url))
    world.tick(0, alarm=True)
    states = [world.tick(day, alarm=False)["state"] for day in (1, 2, 3, 5)]
    assert states == ["canary", "canary", "watching", "idle"]
    assert world.read()["champion"] == "2"
    assert not (tmp_path / "retraining.db").exists()


def test_a_second_tick_in_postgresql_says_that_another_is_at_work(database_url, tmp_path):
    config = make_config(tmp_path, retraining__database_url=database_url)
    inside: list[dict] = []

    def tick_again(name: str) -> None:
        if name == "after deciding" and not inside:
            inside.append(LoopWorld(config).tick(9))

    LoopWorld(config, checkpoint=tick_again).tick(9)
    assert inside[0]["is_busy"]


def read_compose_command(service: str) -> list[str]:
    """Read the command of a service of the compose file, word by word."""
    compose = yaml.safe_load((SOURCE_FOLDER / "docker-compose.yml").read_text())
    return shlex.split(compose["services"][service]["command"])


def count_ticks(database_url: str) -> int:
    with open_database(database_url) as engine, engine.begin() as connection:
        return connection.execute(select(func.count()).select_from(ticks)).scalar_one()


def test_the_compose_files_loop_ticks_in_postgresql(database_url, tiny_world, tmp_path):
    config = tiny_world.model_copy(update={"runs": tmp_path / "runs"})
    shutil.copytree(tiny_world.runs, config.runs)
    message = {"transaction_id": "t1", "customer_id": "ann", "amount": 5.0}
    with start_service(config, port=find_free_port()) as url:
        assert ask(url, [{**message, "event_time": datetime.now(UTC).isoformat()}])
    python, *command = read_compose_command("loop")
    assert python == ".venv/bin/python"
    own = {
        "${RUNS:-runs/demo}": str(config.runs),
        "retraining.database_url=postgresql+psycopg://loop:loop@postgres:5432/loop": (
            f"retraining.database_url={database_url}"
        ),
    }
    assert own.keys() <= set(command)
    before = count_ticks(database_url)
    with subprocess.Popen(
        [sys.executable, *(own.get(word, word) for word in command)], cwd=SOURCE_FOLDER
    ) as loop:
        try:
            wait_until(lambda: count_ticks(database_url) == before + 1)
        finally:
            loop.terminate()
    assert not (config.runs / "retraining.db").exists()
