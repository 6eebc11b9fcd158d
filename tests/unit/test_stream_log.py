"""A log keeps every line in its order, gives it until it is acknowledged, and then no more."""

import threading

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.redis_log import RedisLog
from features.stream_log import MAX_READ_BYTES, FileLog
from features.stream_messages import MAX_LINE_BYTES


@pytest.fixture(params=["files", "redis"])
def open_log(request, tmp_path):
    """Opens the log as another process would: nothing is shared but what is stored."""
    if request.param == "files":
        yield lambda num=2: FileLog(tmp_path / "log", num_partitions=num)
        return
    url = request.getfixturevalue("redis_url")
    clients = []

    def connect(num=2):
        clients.append(redis.Redis.from_url(url, protocol=2))
        return RedisLog(clients[-1], num_partitions=num)

    yield connect
    for client in clients:
        client.close()


def lines_of(entries):
    return [entry.line for entry in entries]


def append_one_by_one(log, *lines):
    for line in lines:
        log.append({0: [line]})


def test_lines_are_read_in_the_order_they_were_appended(open_log):
    log = open_log()
    log.append({0: [b"a", b"b"]})
    log.append({0: [b"c"]})
    assert lines_of(log.read(0, max_entries=10)) == [b"a", b"b", b"c"]


def test_each_line_of_a_partition_has_a_position_of_its_own(open_log):
    log = open_log()
    log.append({0: [b"%d" % number for number in range(30)]})
    positions = [entry.position for entry in log.read(0, max_entries=100)]
    assert len(set(positions)) == 30


def test_a_partition_holds_its_own_lines_only(open_log):
    log = open_log()
    log.append({0: [b"a"], 1: [b"b"]})
    assert lines_of(log.read(1, max_entries=10)) == [b"b"]


def test_an_empty_partition_has_nothing_to_read_and_nothing_waiting(open_log):
    log = open_log()
    assert log.read(0, max_entries=10) == []
    assert log.count_waiting(0) == 0


def test_no_more_than_asked_is_read_and_the_next_read_goes_on(open_log):
    log = open_log()
    append_one_by_one(log, b"a", b"b", b"c")
    assert lines_of(log.read(0, max_entries=2)) == [b"a", b"b"]
    assert lines_of(log.read(0, max_entries=2)) == [b"c"]
    assert log.read(0, max_entries=2) == []


def test_what_was_read_and_not_acknowledged_is_read_again_by_the_next(open_log):
    log = open_log()
    log.append({0: [b"a", b"b"]})
    log.read(0, max_entries=10)
    assert lines_of(open_log().read(0, max_entries=10)) == [b"a", b"b"]


def test_what_was_acknowledged_is_read_by_nobody(open_log):
    log = open_log()
    append_one_by_one(log, b"a", b"b")
    log.acknowledge(0, log.read(0, max_entries=1))
    assert lines_of(open_log().read(0, max_entries=10)) == [b"b"]


def test_rewinding_reads_again_from_the_first_that_was_not_acknowledged(open_log):
    log = open_log()
    append_one_by_one(log, b"a", b"b", b"c")
    log.acknowledge(0, log.read(0, max_entries=1))
    log.read(0, max_entries=10)
    log.rewind(0)
    assert lines_of(log.read(0, max_entries=1)) == [b"b"]
    assert lines_of(log.read(0, max_entries=1)) == [b"c"]


def test_after_unacknowledged_lines_come_the_new_ones(open_log):
    log = open_log()
    log.append({0: [b"a"]})
    log.read(0, max_entries=10)
    log.append({0: [b"b"]})
    log.rewind(0)
    read = log.read(0, max_entries=10) + log.read(0, max_entries=10)
    assert lines_of(read) == [b"a", b"b"]


def test_lines_wait_until_they_are_acknowledged(open_log):
    log = open_log()
    log.append({0: [b"a"]})
    entries = log.read(0, max_entries=10)
    assert log.count_waiting(0) > 0
    log.acknowledge(0, entries)
    assert log.count_waiting(0) == 0


@pytest.mark.parametrize("other", [1, 3])
def test_another_number_of_partitions_is_refused_since_entities_would_change_theirs(
    open_log, other
):
    open_log(2)
    with pytest.raises(ValueError, match=r"stream\.num_partitions=2"):
        open_log(other)


def test_a_line_longer_than_a_read_is_passed_cut_short(open_log):
    log = open_log()
    log.append({0: [b"before", b"x" * (2 * MAX_READ_BYTES), b"after"]})
    before, huge, after = [*log.read(0, max_entries=1), *_read_all(log)]
    assert (before.line, after.line) == (b"before", b"after")
    assert len(huge.line) > MAX_LINE_BYTES
    log.acknowledge(0, [before, huge, after])
    assert log.count_waiting(0) == 0


def test_the_longest_line_that_may_be_a_transaction_comes_whole(open_log):
    log = open_log()
    append_one_by_one(log, b"x" * MAX_LINE_BYTES, b"after")
    assert lines_of(log.read(0, max_entries=1)) == [b"x" * MAX_LINE_BYTES]


def test_publishers_at_the_same_time_leave_every_line_whole(open_log):
    def publish(name):
        log = open_log()
        for number in range(20):
            log.append({0: [b"%s-%d-%d" % (name, number, part) for part in range(5)]})

    threads = [threading.Thread(target=publish, args=(name,)) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {
        b"%s-%d-%d" % (name, n, p) for name in (b"a", b"b") for n in range(20) for p in range(5)
    }
    read = lines_of(open_log().read(0, max_entries=1000))
    assert len(read) == len(expected)
    assert set(read) == expected


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(["append", "read", "acknowledge", "rewind", "another"]), max_size=25)
)
def test_whatever_happens_each_line_is_acknowledged_once_and_in_order(open_log, actions):
    log, partition = open_log(), 0
    log.acknowledge(partition, _read_all(log))  # what an earlier example left
    expected, acknowledged, unread = [], [], []
    for number, action in enumerate(actions):
        if action == "append":
            expected.append(b"%d" % number)
            log.append({partition: expected[-1:]})
        elif action == "read":
            unread += log.read(partition, max_entries=2)
        elif action == "acknowledge":
            log.acknowledge(partition, unread)
            acknowledged, unread = acknowledged + unread, []
        else:
            log = open_log() if action == "another" else log
            log.rewind(partition)
            unread = []
    log.rewind(partition)
    assert lines_of(acknowledged + _read_all(log)) == expected


def test_a_line_torn_by_a_kill_is_not_waited_for_and_is_ended_by_the_next_publisher(tmp_path):
    log = FileLog(tmp_path, num_partitions=1)
    log.append({0: [b"a"]})
    with (tmp_path / "000.jsonl").open("ab") as file:
        file.write(b"tor")
    log.acknowledge(0, log.read(0, max_entries=10))
    assert log.count_waiting(0) == 0
    log.append({0: [b"b"]})
    assert lines_of(log.read(0, max_entries=10)) == [b"tor", b"b"]


def test_processes_that_make_a_log_at_the_same_time_make_one(tmp_path):
    made, barrier = [], threading.Barrier(8)

    def make():
        barrier.wait()
        made.append(FileLog(tmp_path / "log", num_partitions=16))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_flushed_redis_log_takes_new_lines(redis_url):
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        log = RedisLog(client, num_partitions=2)
        log.append({0: [b"a"]})
        log.read(0, max_entries=10)
        client.flushall()
        log.append({0: [b"b"]})
        log.read(0, max_entries=10)  # finds its group gone, and makes it
        log.rewind(0)
        assert lines_of(_read_all(log)) == [b"b"]


def test_an_entry_of_another_make_in_redis_is_read_as_an_empty_line(redis_url):
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        log = RedisLog(client, num_partitions=1)
        client.xadd("throughline_fraud:log:0", {"foreign": "field"})
        assert lines_of(_read_all(log)) == [b""]


def _read_all(log):
    entries = []
    for _ in range(100):
        new = log.read(0, max_entries=1000)
        if not new:
            break
        entries += new
    return entries


def test_what_redis_refuses_within_the_transaction_is_no_appended_line(redis_url):
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        log = RedisLog(client, num_partitions=1)
        client.set("throughline_fraud:log:0", "no stream")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            log.append({0: [b"line"]})
