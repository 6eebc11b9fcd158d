"""Processors are killed, stopped and crowded: nothing is lost, nothing counts twice."""

import random
import signal
import time

import pytest

from tests.stack.stream_world import (
    copy_world,
    count_waiting,
    die_between_archive_and_write,
    die_between_write_and_acknowledge,
    pause_before_write,
    split,
    wait_until,
)

pytestmark = pytest.mark.stack


def test_a_processor_killed_between_write_and_acknowledge_doubles_nothing(world, processors):
    stream = world.connect()
    stream.publish(world.coming)
    killed = processors.start(world, die_between_write_and_acknowledge)
    killed.process.join(60)
    assert killed.process.exitcode == -signal.SIGKILL
    counts = processors.start(world, until_empty=True).finish()
    assert counts["duplicates"] > 0  # the killed one had written them
    assert counts["accepted"] + counts["duplicates"] == len(world.coming)
    world.check(stream)


def test_a_processor_killed_between_archive_and_write_loses_nothing(world, processors):
    stream = world.connect()
    stream.publish(world.coming)
    killed = processors.start(world, die_between_archive_and_write)
    killed.process.join(60)
    assert killed.process.exitcode == -signal.SIGKILL
    counts = processors.start(world, until_empty=True).finish()
    assert counts["accepted"] == len(world.coming)
    world.check(stream)


def test_processors_killed_at_random_moments_lose_nothing_and_double_nothing(world, processors):
    stream, moments = world.connect(), random.Random(1)
    for chunk in split(world.coming, 300):
        victim = processors.start(world)
        stream.publish(chunk)
        time.sleep(moments.uniform(0.3, 1.0))
        victim.kill()
    processors.start(world, until_empty=True).finish()
    world.check(stream)
    assert stream.dead_letters.count() == {}


def test_two_processors_share_the_partitions_and_both_work(world, processors):
    world = world.with_settings(lease_seconds=3.0)  # longer than a busy machine holds one up
    stream = world.connect()
    pair = [processors.start(world), processors.start(world)]
    for chunk in split(world.coming, 100):  # while both start, and the first gives back half
        stream.publish(chunk)
        time.sleep(0.3)
    wait_until(lambda: not count_waiting(stream))
    for processor in pair:
        processor.signal(signal.SIGTERM)
    accepted = [processor.finish()["accepted"] for processor in pair]
    assert sum(accepted) == len(world.coming)
    assert min(accepted) > 0
    world.check(stream)


def test_a_paused_processor_cannot_overwrite_what_its_successor_wrote(world, processors):
    stream = world.connect()
    stream.publish(world.coming)
    paused = processors.start(world, pause_before_write)
    wait_until((processors.folder / "paused").exists)
    processors.start(world, until_empty=True).finish()
    world.check(stream)
    paused.signal(signal.SIGCONT)
    time.sleep(0.5)
    world.check(stream)
    paused.signal(signal.SIGTERM)
    assert paused.finish()["accepted"] == 0


def test_a_killed_processors_partitions_are_taken_over_when_its_leases_run_out(world, processors):
    stream = world.connect()
    killed = processors.start(world)
    stream.publish(world.coming.head(100))
    wait_until(lambda: not count_waiting(stream))
    heir = processors.start(world)
    time.sleep(1.0)  # it lives, and holds its half
    killed.kill()
    stream.publish(world.coming.tail(-100))
    seconds = wait_until(lambda: not count_waiting(stream))
    lease_seconds = world.config.stream.lease_seconds
    assert seconds < 2 * lease_seconds + 2  # the work itself takes a second on a busy machine
    heir.signal(signal.SIGTERM)
    heir.finish()
    world.check(stream)


def test_a_processor_that_ends_gives_its_partitions_back_at_once(
    stream_source, tmp_path, processors
):
    world = copy_world(stream_source, tmp_path, None, lease_seconds=600.0)
    stream = world.connect()
    first = processors.start(world)
    stream.publish(world.coming.head(100))
    wait_until(lambda: not count_waiting(stream))
    first.signal(signal.SIGTERM)
    first.finish()
    stream.publish(world.coming.tail(-100))
    processors.start(world, until_empty=True).finish(seconds=20)
    world.check(stream)
