"""The loop on a real PostgreSQL, as the stack profile has it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

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
