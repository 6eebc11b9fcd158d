"""One tick acts at a time, whatever became of the one before."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from sqlalchemy import insert, select, update

from monitoring.loop_lease import LeaseLostError, LeaseTakenError, hold_lease
from monitoring.loop_store import LoopStore
from monitoring.loop_tables import lease, open_database
from monitoring.retraining_policy import Decision
from tests.unit.loop_world import LoopWorld, make_config
from tests.unit.test_loop_policy import loud


@pytest.fixture
def engine(tmp_path):
    with open_database(f"sqlite:///{tmp_path / 'loop.db'}") as opened:
        yield opened


@pytest.fixture
def held_by(engine):
    def write(**changes) -> None:
        values = {
            "name": "tick",
            "owner": "somebody",
            "host": socket.gethostname(),
            "process": os.getpid(),
            "process_started": 0.0,
            "until_time": datetime.now(UTC) + timedelta(hours=1),
            **changes,
        }
        with engine.begin() as connection:
            connection.execute(insert(lease).values(values))

    return write


def test_a_second_holder_is_told_who_the_first_is(engine):
    with (
        hold_lease(engine, seconds=60),
        pytest.raises(LeaseTakenError, match=f"process {os.getpid()} on"),
        hold_lease(engine, seconds=60),
    ):
        pass


def test_a_lease_given_back_is_free(engine):
    for _ in range(2):
        with hold_lease(engine, seconds=60):
            pass


def test_a_block_that_raises_gives_its_lease_back(engine):
    with pytest.raises(KeyboardInterrupt), hold_lease(engine, seconds=60):
        raise KeyboardInterrupt
    with hold_lease(engine, seconds=60):
        pass


def test_another_machines_lease_is_free_when_it_has_run_out(engine, held_by):
    held_by(host="elsewhere", until_time=datetime.now(UTC) - timedelta(seconds=1))
    with hold_lease(engine, seconds=60):
        pass


def test_another_machines_lease_is_kept_until_then(engine, held_by):
    held_by(host="elsewhere")
    with pytest.raises(LeaseTakenError), hold_lease(engine, seconds=60):
        pass


def test_a_dead_process_of_this_machine_holds_nothing(engine, held_by):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    held_by(process=process.pid)
    with hold_lease(engine, seconds=60):
        pass


def test_a_killed_process_that_nobody_waited_for_holds_nothing(engine, held_by):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    held_by(process=process.pid, process_started=psutil.Process(process.pid).create_time())
    process.send_signal(signal.SIGKILL)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with hold_lease(engine, seconds=60):
        pass
    process.wait()


def test_another_process_with_a_dead_ones_number_holds_nothing(engine, held_by):
    held_by(process=os.getpid(), process_started=1.0)
    with hold_lease(engine, seconds=60):
        pass


def test_a_living_process_of_this_machine_keeps_its_lease_until_it_runs_out(engine, held_by):
    held_by(process_started=psutil.Process().create_time())
    with pytest.raises(LeaseTakenError), hold_lease(engine, seconds=60):
        pass


def test_a_tick_that_is_stopped_loses_its_lease_and_once_awake_finds_that_out(engine, tmp_path):
    """The other process is stopped as by Ctrl-Z, with the thread that renews."""
    code = (
        "import sys\n"
        "from monitoring.loop_lease import LeaseLostError, hold_lease\n"
        "from monitoring.loop_tables import open_database\n"
        "with open_database(sys.argv[1]) as engine, hold_lease(engine, seconds=1.0) as held:\n"
        "    print('held', flush=True); sys.stdin.read()\n"
        "    try:\n"
        "        with engine.begin() as connection: held.renew(connection)\n"
        "    except LeaseLostError: print('lost', flush=True)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, f"sqlite:///{tmp_path / 'loop.db'}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    other.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while True:
        try:
            with hold_lease(engine, seconds=60):
                other.send_signal(signal.SIGCONT)
                said, _ = other.communicate(timeout=60)
            break
        except LeaseTakenError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert said == "lost\n"


def test_a_lease_is_renewed_while_its_holder_works(engine):
    def read_end():
        with engine.begin() as connection:
            return connection.execute(select(lease.c.until_time)).scalar()

    with hold_lease(engine, seconds=0.3):
        first = read_end()
        deadline = time.monotonic() + 20
        while read_end() == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_whoever_lost_the_lease_writes_nothing_more(engine):
    with hold_lease(engine, seconds=60) as held:
        with engine.begin() as connection:
            connection.execute(update(lease).values(owner="somebody else"))
        with pytest.raises(LeaseLostError):
            LoopStore(engine, lease=held).record_tick(loud(), Decision("keep", ()))
    assert LoopStore(engine).find_last_tick() is None


def test_whoever_lost_the_lease_leaves_the_registry_as_it_is(tmp_path):
    config = make_config(tmp_path)

    def lose(name: str) -> None:
        if name == "after intending shadow":
            with LoopWorld(config).open_store() as store, store.engine.begin() as connection:
                connection.execute(update(lease).values(owner="somebody else"))

    world = LoopWorld(config, checkpoint=lose)
    with pytest.raises(LeaseLostError):
        world.tick(0, alarm=True)
    assert world.list_steps()[-1] == "judging -> shadow"
    assert world.read()["rollout"] is None


@pytest.mark.parametrize(("is_durable", "level"), [(True, 2), (False, 0)])
def test_a_commit_waits_for_the_disk_unless_told_that_nothing_must_last(
    tmp_path, is_durable, level
):
    url = f"sqlite:///{tmp_path}/loop.db"
    with open_database(url, is_durable=is_durable) as engine, engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
