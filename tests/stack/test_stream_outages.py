"""Servers, stores and disks go away and come back: processors wait, say so, and go on."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
import redis
import yaml

from features.fraud_rebuild import run_rebuild
from features.fraud_state import EVENT_STATES
from features.state_merge import build_event_states
from features.state_store import StoreEmptyError
from features.store_build import run_features
from tests.frame_reader import open_frame_reader
from tests.stack.stream_world import (
    copy_world,
    count_waiting,
    publish_with_retry,
    split,
    wait_until,
)

pytestmark = pytest.mark.stack


def test_a_killed_redis_comes_back_and_everybody_goes_on(
    stream_source, tmp_path, own_redis, processors
):
    world = copy_world(stream_source, tmp_path, own_redis.url)
    stream = world.connect()
    pair = [processors.start(world), processors.start(world)]
    for chunk in split(world.coming, 500):
        half = len(chunk) // 2
        publish_with_retry(stream, split(chunk.head(half), 50))
        _wait_for_append_only_file(own_redis.url)
        own_redis.kill()
        restart = threading.Timer(0.3, own_redis.start)
        restart.start()
        publish_with_retry(stream, split(chunk.tail(-half), 50))
        restart.join()
    wait_until(lambda: not count_waiting(stream))
    assert any(processor.tells("waiting: ") for processor in pair)
    for processor in pair:
        processor.signal(signal.SIGTERM)
        processor.finish()
    world.check(stream)


def test_a_flushed_redis_is_an_error_until_it_is_rebuilt_and_the_processor_goes_on(
    stream_source, tmp_path, redis_url, processors
):
    world = copy_world(stream_source, tmp_path, redis_url)
    stream = world.connect()
    processor = processors.start(world)
    stream.publish(world.coming.head(700))
    wait_until(lambda: not stream.archive.load().empty)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with (
        open_frame_reader(tmp_path, redis_url) as reader,
        pytest.raises(StoreEmptyError, match="fraud rebuild"),
    ):
        reader.read(world.coming.head(1))
    wait_until(lambda: processor.tells("waiting: the online store is empty"))
    run_rebuild(world.config)
    stream.publish(world.coming)  # what was not read was flushed too: its publisher knows it
    wait_until(lambda: not count_waiting(stream))
    processor.signal(signal.SIGTERM)
    processor.finish()
    assert processor.tells("going on")
    world.check(stream)


def test_states_lost_with_their_own_redis_are_rebuilt_and_the_log_lacks_nothing(
    stream_source, tmp_path, own_redis, states_redis, processors
):
    world = copy_world(stream_source, tmp_path, states_redis.url, log_redis_url=own_redis.url)
    stream = world.connect()
    pair = [processors.start(world), processors.start(world)]
    stream.publish(world.coming.head(700))
    wait_until(lambda: not stream.archive.load().empty)
    states_redis.kill()
    stream.publish(world.coming.tail(-700))  # the log is there
    states_redis.start()  # empty: it keeps no file
    with (
        open_frame_reader(tmp_path, states_redis.url) as reader,
        pytest.raises(StoreEmptyError, match="fraud rebuild"),
    ):
        reader.read(world.coming.head(1))
    for processor in pair:
        wait_until(lambda: processor.tells("waiting: "))  # noqa: B023 - called at once
    assert count_waiting(stream)
    run_rebuild(world.config)
    wait_until(lambda: not count_waiting(stream))
    for processor in pair:
        processor.signal(signal.SIGTERM)
        processor.finish()
    world.check(stream)


def test_states_stay_when_the_log_is_killed_in_its_own_redis_and_comes_back(
    stream_source, tmp_path, own_redis, states_redis, processors
):
    world = copy_world(stream_source, tmp_path, states_redis.url, log_redis_url=own_redis.url)
    stream = world.connect()
    processor = processors.start(world)
    publish_with_retry(stream, split(world.coming.head(700), 50))
    _wait_for_append_only_file(own_redis.url)
    own_redis.kill()
    restart = threading.Timer(0.3, own_redis.start)
    restart.start()
    publish_with_retry(stream, split(world.coming.tail(-700), 50))
    restart.join()
    wait_until(lambda: not count_waiting(stream))
    processor.signal(signal.SIGTERM)
    processor.finish()
    world.check(stream)


def test_a_store_flushed_while_nothing_comes_is_noticed_and_not_taken_for_done(
    stream_source, tmp_path, redis_url, processors
):
    world = copy_world(stream_source, tmp_path, redis_url)
    stream = world.connect()
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    processor = processors.start(world, until_empty=True)
    wait_until(lambda: processor.tells("waiting: the online store is empty"))
    run_rebuild(world.config)
    processor.finish()
    world.check(stream, world.coming.head(0))


def test_a_full_disk_is_waited_for_and_nothing_is_acknowledged_meanwhile(world, processors):
    stream = world.connect()
    processor = processors.start(world)
    stream.publish(world.coming.head(200))
    wait_until(lambda: not count_waiting(stream))
    _limit_file_size(processor.process.pid, 4096)
    stream.publish(world.coming.tail(-200))
    before = count_waiting(stream)
    wait_until(lambda: processor.tells("waiting: "))
    assert count_waiting(stream) == before
    _limit_file_size(processor.process.pid, resource.RLIM_INFINITY)
    wait_until(lambda: not count_waiting(stream))
    processor.signal(signal.SIGTERM)
    processor.finish()
    world.check(stream)


def test_a_redis_without_memory_is_waited_for(stream_source, tmp_path, own_redis, processors):
    world = copy_world(stream_source, tmp_path, own_redis.url)
    stream = world.connect()
    stream.publish(world.coming)
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", 1)
        processor = processors.start(world, until_empty=True)
        wait_until(lambda: processor.tells("waiting: "))
        client.config_set("maxmemory", 0)
    processor.finish()
    world.check(stream)


def test_a_processor_goes_on_with_a_store_that_was_built_anew(world, processors):
    stream = world.connect()
    processor = processors.start(world)
    first, second = world.coming.head(700), world.coming.tail(-700)
    stream.publish(first)
    wait_until(lambda: not count_waiting(stream))
    run_features(world.config, as_of=second["event_time"].iloc[0])
    stream.publish(second)
    wait_until(lambda: not count_waiting(stream))
    processor.signal(signal.SIGTERM)
    processor.finish()
    world.after(first).check(world.connect(), second)


def test_features_built_anew_know_what_was_streamed_and_is_in_no_history(world):
    stream = world.connect()
    whole = pd.concat([world.history, world.coming], ignore_index=True)
    live = world.coming.tail(50).assign(
        transaction_id=[f"live-{number}" for number in range(50)],
        event_time=world.coming["event_time"].iloc[-1] + pd.Timedelta(hours=1),
    )
    stream.publish(live)
    stream.make_processor().run(until_empty=True)
    for restore in (run_features, run_rebuild):
        restore(world.config)
        states = world.connect().states
        for state, kind in EVENT_STATES.items():
            built = build_event_states(pd.concat([whole, live]), state)
            found = states.read({kind.key: built[kind.key].tolist()}, [state])[state]
            assert found == built[state].tolist()


def test_a_rebuild_under_load_loses_nothing(world, processors):
    stream = world.connect()
    pair = [processors.start(world), processors.start(world)]
    publisher = threading.Thread(target=_publish_slowly, args=(world, world.coming))
    publisher.start()
    for _ in range(2):
        wait_until(lambda: count_waiting(stream) > 0)
        run_rebuild(world.config)
    publisher.join()
    wait_until(lambda: not count_waiting(stream))
    for processor in pair:
        processor.signal(signal.SIGTERM)
        processor.finish()
    world.check(stream)


def test_a_rebuild_knows_what_only_some_partitions_have_read(world):
    stream = world.connect()
    stream.publish(world.coming)
    held = [stream.states.acquire(partition, seconds=60) for partition in (0, 2)]
    assert None not in held
    read = (1, 3)
    stream.make_processor().run(
        should_stop=lambda: not any(stream.log.count_waiting(partition) for partition in read)
    )
    run_rebuild(world.config)
    stream.make_processor().run(until_empty=True)
    world.check(stream)


def test_two_rebuilds_at_once_are_refused(stream_source, tmp_path):
    world = copy_world(stream_source, tmp_path, None)
    lock = world.config.runs / "stream" / "rebuild.lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="under way"):
            run_rebuild(world.config)
    run_rebuild(world.config)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl_c"])
def test_the_command_ends_in_time_prints_its_result_and_leaves_its_partitions_to_others(
    stream_source, tmp_path, processors, number
):
    world = copy_world(stream_source, tmp_path, None, lease_seconds=600.0)
    stream = world.connect()
    stream.publish(world.coming.head(500))
    file = tmp_path / "stream.yaml"
    file.write_text(yaml.safe_dump(json.loads(world.config.model_dump_json())))
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "throughline", "fraud", "stream"]
    running = subprocess.Popen([*command, "--config", str(file), "--json", str(result)])
    try:
        wait_until(lambda: not count_waiting(stream), seconds=120)
        running.send_signal(number)
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()
        running.wait()
    assert json.loads(result.read_text())["accepted"] == 500
    stream.publish(world.coming.tail(-500))
    processors.start(world, until_empty=True).finish(seconds=60)
    world.check(stream)


def _publish_slowly(world, transactions):
    stream = world.connect()
    for chunk in split(transactions, 50):
        publish_with_retry(stream, [chunk])
        time.sleep(0.05)


def _wait_for_append_only_file(url):
    """Wait until the server has handed what it acknowledged to the system.

    With ``appendfsync everysec`` it puts that off for up to two seconds while the disk is busy; a
    server killed then forgets what it acknowledged. ``appendfsync always`` never does.
    """
    with redis.Redis.from_url(url) as client:
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)


def _limit_file_size(pid, size):
    """Let a process find the disk full: what it writes beyond this size fails."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    assert os.getpid() != pid
