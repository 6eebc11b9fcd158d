"""Both online stores: states come back as written, and only a lease's holder writes them."""

import sqlite3
import time
from contextlib import contextmanager

import pytest
import redis

from features.feast_layout import PROJECT, encode_redis_key
from features.fraud_state import STATE_KEYS
from features.redis_link import pack
from features.redis_states import CHUNK_STATES, MARK, RedisStates
from features.sqlite_states import SqliteStates
from features.state_store import LeaseLostError, StoreEmptyError, Update
from tests.unit.feast_tables import make_feast_tables

BUSY = Update("customer_events", "c1", b"state", 1_767_225_600_000_000)


@pytest.fixture(params=["sqlite", "redis"])
def connect(request, tmp_path):
    """Connects as another process would."""
    if request.param == "sqlite":
        path = tmp_path / "online.db"
        make_feast_tables(path)
        yield lambda: SqliteStates(path)
        return
    url = request.getfixturevalue("redis_url")
    clients = []

    def open_one():
        clients.append(redis.Redis.from_url(url, protocol=2))
        return RedisStates(clients[-1])

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def states(connect):
    """A store that is whole."""
    store = connect()
    store.clear()
    store.mark_whole()
    return store


def read(states, *customers):
    return states.read({"customer_id": customers}, ["customer_events"])["customer_events"]


def test_states_come_back_as_written_in_the_order_asked_and_unknown_ones_as_none(states):
    states.write([BUSY, Update("customer_events", "c2", b"", 0)], lease=None)
    assert read(states, "c2", "?", "c1", "c1") == [b"", None, b"state", b"state"]


def test_kinds_of_state_of_one_entity_are_kept_apart(states):
    updates = [
        Update("merchant_events", "m1", b"events", 1),
        Update("merchant_labels", "m1", b"labels", 1),
    ]
    states.write(updates, lease=None)
    found = states.read({"merchant_id": ["m1"]}, ["merchant_labels", "merchant_events"])
    assert found == {"merchant_labels": [b"labels"], "merchant_events": [b"events"]}


def test_a_state_written_again_is_replaced(states):
    states.write([BUSY], lease=None)
    states.write([Update("customer_events", "c1", b"newer", 1)], lease=None)
    assert read(states, "c1") == [b"newer"]


def test_more_entities_than_one_query_holds_are_read(states):
    states.write([BUSY], lease=None)
    found = read(states, *(f"x{number}" for number in range(33_000)), "c1")
    assert found[-1] == b"state"
    assert found.count(None) == 33_000


def test_a_store_that_was_cleared_neither_answers_nor_takes_a_processors_states(states):
    lease = states.acquire(0, seconds=60)
    states.clear()
    assert not states.is_whole()
    with pytest.raises(StoreEmptyError, match="fraud rebuild"):
        read(states, "c1")
    with pytest.raises(StoreEmptyError):
        states.write([BUSY], lease=lease)
    states.mark_whole()
    assert read(states, "c1") == [None]


def test_clearing_removes_every_state(states):
    updates = [Update(state, "e1", b"x", 1) for state in STATE_KEYS]
    states.write(updates, lease=None)
    states.clear()
    states.mark_whole()
    keys = {key: ["e1"] for key in STATE_KEYS.values()}
    assert set(map(tuple, states.read(keys, list(STATE_KEYS)).values())) == {(None,)}


def test_who_read_before_the_store_was_rebuilt_cannot_write_after_it(states, connect):
    lease = states.acquire(0, seconds=60)
    rebuild = connect()
    rebuild.clear()
    rebuild.mark_whole()
    with pytest.raises(LeaseLostError):
        states.write([BUSY], lease=lease)
    assert read(states, "c1") == [None]


def test_a_lease_is_held_by_one_at_a_time(states, connect):
    assert states.acquire(0, seconds=60) is not None
    assert connect().acquire(0, seconds=60) is None
    assert connect().acquire(1, seconds=60) is not None


def test_a_lease_given_back_is_free_at_once(states, connect):
    states.release(states.acquire(0, seconds=60))
    assert connect().acquire(0, seconds=60) is not None


def test_a_lease_runs_out_and_its_next_holder_alone_writes(states, connect):
    lost = states.acquire(0, seconds=0.05)
    time.sleep(0.1)
    heir = connect()
    held = heir.acquire(0, seconds=60)
    assert not states.renew(lost, seconds=60)
    with pytest.raises(LeaseLostError, match="another owner"):
        states.write([BUSY], lease=lost)
    heir.write([BUSY], lease=held)
    assert read(states, "c1") == [b"state"]


def test_a_lease_that_ran_out_does_not_write_even_if_nobody_took_it(states):
    lost = states.acquire(0, seconds=0.05)
    time.sleep(0.1)
    with pytest.raises(LeaseLostError):
        states.write([], lease=lost)


class Interrupted:
    """A pipe to Redis during one of whose transactions something else happens."""

    def __init__(self, pipe, happen, *, at):
        self._pipe, self._happen, self._at = pipe, happen, at

    @contextmanager
    def open(self):
        with self._pipe.open() as call:

            def call_late(commands):
                if EXEC in commands:
                    self._at -= 1
                    if not self._at:
                        self._happen()
                return call(commands)

            yield call_late


EXEC = pack([b"EXEC"])
LEASE = f"{PROJECT}:lease:0"
HAPPENINGS = {
    "given away": lambda client: client.set(LEASE, "another"),
    "given back": lambda client: client.delete(LEASE),
    "run out": lambda client: (client.pexpire(LEASE, 1), time.sleep(0.05)),
    "store cleared": lambda client: client.delete(MARK),
    "store rebuilt": lambda client: (client.delete(MARK), client.set(MARK, "1")),
    "everything lost": lambda client: client.flushall(),
}


@pytest.fixture
def redis_states(redis_url):
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        states = RedisStates(client)
        states.mark_whole()
        yield states, client


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_what_happens_between_the_look_at_the_lease_and_the_write_undoes_the_write(
    redis_states, happening
):
    states, client = redis_states
    lease = states.acquire(0, seconds=60)
    states._pipe = Interrupted(states._pipe, lambda: HAPPENINGS[happening](client), at=1)
    with pytest.raises((LeaseLostError, StoreEmptyError)):
        states.write([BUSY], lease=lease)
    states.mark_whole()
    assert read(states, "c1") == [None]


def test_a_lease_lost_between_two_chunks_leaves_the_second_unwritten(redis_states):
    states, client = redis_states
    lease = states.acquire(0, seconds=60)
    states._pipe = Interrupted(states._pipe, lambda: client.set(LEASE, "another"), at=2)
    updates = [Update("customer_events", f"c{number}", b"s", 1) for number in range(300)]
    with pytest.raises(LeaseLostError):
        states.write(updates, lease=lease)
    assert read(states, "c0", f"c{CHUNK_STATES - 1}", f"c{CHUNK_STATES}") == [b"s", b"s", None]


def test_an_empty_write_says_that_the_lease_is_lost_too(redis_states):
    states, client = redis_states
    lease = states.acquire(0, seconds=60)
    states.write([], lease=lease)
    client.delete(LEASE)
    with pytest.raises(LeaseLostError):
        states.write([], lease=lease)


def test_giving_back_a_lost_lease_leaves_the_next_holders(states, connect):
    lost = states.acquire(0, seconds=0.05)
    time.sleep(0.1)
    held = connect().acquire(0, seconds=60)
    states.release(lost)
    assert states.acquire(0, seconds=60) is None
    states.write([BUSY], lease=held)


def test_a_renewed_lease_lasts_longer(states):
    lease = states.acquire(0, seconds=0.3)
    assert states.renew(lease, seconds=60)
    time.sleep(0.4)
    states.write([BUSY], lease=lease)


def test_a_lease_of_one_partition_is_none_of_another(states, connect):
    lease = states.acquire(0, seconds=60)
    connect().acquire(1, seconds=60)
    with pytest.raises(LeaseLostError):
        states.write([BUSY], lease=type(lease)(1, lease.token))


def test_processors_are_counted_while_they_live(states):
    assert states.list_processors("b", seconds=60) == ["b"]
    assert states.list_processors("a", seconds=60) == ["a", "b"]
    assert states.list_processors("b", seconds=60) == ["a", "b"]
    states.forget_processor("a")
    assert states.list_processors("b", seconds=60) == ["b"]
    time.sleep(0.1)
    assert states.list_processors("c", seconds=0.05) == ["c"]


def test_a_database_that_is_replaced_is_opened_anew(tmp_path):
    path, other = tmp_path / "online.db", tmp_path / "other.db"
    make_feast_tables(path)
    states = SqliteStates(path)
    states.mark_whole()
    lease = states.acquire(0, seconds=60)
    make_feast_tables(other)
    replacement = SqliteStates(other)
    replacement.mark_whole()
    other.replace(path)
    with pytest.raises(LeaseLostError):
        states.write([BUSY], lease=lease)


def test_after_a_failed_write_the_next_one_works(tmp_path):
    path = tmp_path / "online.db"
    make_feast_tables(path)
    states = SqliteStates(path)
    states.mark_whole()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(
        f"CREATE TRIGGER full BEFORE INSERT ON {PROJECT}_customer_events_state"
        " BEGIN SELECT RAISE(ROLLBACK, 'full'); END"  # SQLite ends the transaction by itself
    )
    with pytest.raises(sqlite3.DatabaseError, match="full"):
        states.write([BUSY], lease=None)
    other.execute("DROP TRIGGER full")
    other.close()
    states.write([BUSY], lease=None)
    assert read(states, "c1") == [b"state"]


def test_a_damaged_file_is_an_error_that_says_the_way_out(tmp_path):
    file = tmp_path / "online.db"
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(ValueError, match="run `throughline fraud features`"):
        SqliteStates(file)


def test_a_state_that_redis_refuses_within_a_transaction_is_an_error(redis_states):
    states, client = redis_states
    client.set(encode_redis_key("customer_id", "c1"), "no hash")
    lease = states.acquire(0, seconds=60)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        states.write([BUSY], lease=lease)
