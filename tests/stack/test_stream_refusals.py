"""Late, early, doubled and broken lines: each is counted once, and the stream goes on."""

import sqlite3

import numpy as np
import pandas as pd
import pytest

from features.store import open_feature_store
from features.stream_log import MAX_READ_BYTES
from features.stream_messages import MAX_LINE_BYTES
from tests.frame_reader import open_frame_reader
from tests.stack.stream_world import (
    copy_world,
    die_between_write_and_acknowledge,
)

pytestmark = pytest.mark.stack
MINUTE = pd.Timedelta(minutes=1)
GOOD = b'{"transaction_id":"p1","event_time":1,"available_time":1,"customer_id":"c","amount":1%s}'
POISON = {
    "empty": b"",
    "not json": b"\x00\x01 hello",
    "torn": (GOOD % b"")[:40],
    "another type": (GOOD % b"").replace(b'"amount":1', b'"amount":"1"'),
    "a negative amount": (GOOD % b"").replace(b'"amount":1', b'"amount":-1'),
    "no number": (GOOD % b"").replace(b'"amount":1', b'"amount":NaN'),
    "infinite": (GOOD % b"").replace(b'"amount":1', b'"amount":1e999'),
    "no customer": (GOOD % b"").replace(b'"customer_id":"c",', b""),
    "an empty customer": (GOOD % b"").replace(b'"customer_id":"c"', b'"customer_id":""'),
    "not UTF-8": GOOD % b',"ip":"\xff\xfe"',
    "half a character": GOOD % b',"ip":"\\ud800"',
    "before 1970": (GOOD % b"").replace(b'"event_time":1', b'"event_time":-1'),
    "no place on earth": GOOD % b',"latitude":91',
    "not finished": (GOOD % b"") + b"}",
    "too long": GOOD % (b',"note":"' + b"x" * MAX_LINE_BYTES + b'"'),
    "longer than a read": b"x" * (MAX_READ_BYTES + 10),
}


def process(stream):
    """Process until the log is empty, and return what became of it."""
    processor = stream.make_processor()
    processor.run(until_empty=True)
    return processor.counts


def test_poison_is_quarantined_with_its_reason_and_the_stream_goes_on(world):
    stream = world.connect()
    stream.publish(world.coming.head(700))
    for line in POISON.values():
        stream.log.append({1: [line]})
    stream.publish(world.coming.tail(-700))
    counts = process(stream)
    assert counts.undecodable == len(POISON)
    assert stream.dead_letters.count() == {"undecodable": len(POISON)}
    assert counts.accepted == len(world.coming)
    world.check(stream)


def test_poison_that_is_read_again_after_a_kill_is_quarantined_once(world, processors):
    stream = world.connect()
    stream.log.append({p: [b"poison"] for p in range(stream.log.num_partitions)})
    stream.publish(world.coming)
    processors.start(world, die_between_write_and_acknowledge).process.join(60)
    processors.start(world, until_empty=True).finish()
    assert stream.dead_letters.count() == {"undecodable": stream.log.num_partitions}
    world.check(stream)


def test_a_line_that_a_killed_publisher_left_torn_harms_no_line_after_it(stream_source, tmp_path):
    world = copy_world(stream_source, tmp_path, None)
    stream = world.connect()
    stream.publish(world.coming.head(100))
    log = world.config.runs / "stream" / "log"
    for file in log.glob("*.jsonl"):
        with file.open("ab") as end:
            end.write((GOOD % b"")[:50])
    assert process(stream).accepted == 100  # and it ends, although the torn lines wait for theirs
    stream.publish(world.coming.tail(-100))
    assert process(stream).undecodable == stream.log.num_partitions
    world.check(stream)


def test_a_dead_letter_holds_the_line_and_its_reason(world):
    stream = world.connect()
    stream.log.append({2: [b"poison"]})
    process(stream)
    with sqlite3.connect(world.config.runs / "stream" / "dead_letters.db") as connection:
        rows = connection.execute("SELECT partition, reason, line FROM dead_letters").fetchall()
    connection.close()
    assert rows == [(2, "undecodable: JSON is malformed: invalid character (byte 0)", b"poison")]


def test_a_transaction_published_twice_counts_once(world):
    stream = world.connect()
    stream.publish(world.coming)
    stream.publish(world.coming.assign(amount=world.coming["amount"] + 1))
    counts = process(stream)
    assert (counts.accepted, counts.duplicates) == (len(world.coming), len(world.coming))
    world.check(stream)


def test_late_events_within_the_limit_take_their_place_in_every_window(world):
    stream = world.connect()
    late = world.coming.iloc[::3]
    in_time = world.coming.drop(late.index)
    stream.publish(in_time)
    process(stream)
    for event_time, rows in late.groupby("event_time"):
        stream.publish(rows, available_time=event_time + 59 * MINUTE)
    assert process(stream).accepted == len(late)
    world.check(stream)


def test_an_event_older_than_the_watermark_is_a_dead_letter_and_changes_nothing(world):
    stream = world.connect()
    late = world.coming.head(1)
    stream.publish(late, available_time=late["event_time"].iloc[0] + 61 * MINUTE)
    stream.publish(world.coming.tail(-1))
    assert process(stream).late == 1
    assert stream.dead_letters.count() == {"late": 1}
    world.check(stream, world.coming.tail(-1))


@pytest.mark.parametrize("ahead", [6 * MINUTE, pd.Timedelta(days=4000)])
def test_an_event_from_the_future_is_a_dead_letter_and_empties_no_window(world, ahead):
    stream = world.connect()
    now = world.coming["event_time"].iloc[0]
    early = world.coming.head(1).assign(event_time=now + ahead)
    stream.publish(early, available_time=now)
    stream.publish(world.coming.tail(-1))
    assert process(stream).future == 1
    assert stream.dead_letters.count() == {"from the future": 1}
    world.check(stream, world.coming.tail(-1))


def test_a_publisher_whose_clock_is_years_ahead_empties_no_window(world):
    stream = world.connect()
    later = pd.Timestamp.now(tz="UTC").floor("us") + pd.Timedelta(days=4000)
    stream.publish(world.coming.head(1).assign(event_time=later), available_time=later)
    stream.publish(world.coming.tail(-1))
    assert process(stream).future == 1
    world.check(stream, world.coming.tail(-1))


def test_producers_whose_clocks_differ_by_minutes_are_both_believed(world):
    stream = world.connect()
    rows = world.coming.head(100)
    skew = np.where(np.arange(len(rows)) % 2, 4 * MINUTE, -4 * MINUTE)
    told = rows.assign(event_time=rows["event_time"] + pd.to_timedelta(skew))
    for position, arrived in enumerate(rows["event_time"]):
        stream.publish(told.iloc[[position]], available_time=arrived)
    assert process(stream).accepted == len(rows)
    world.check(stream, told)


def test_features_after_lateness_duplicates_and_disorder_are_those_of_one_orderly_stream(
    stream_source, tmp_path
):
    worlds = [copy_world(stream_source, tmp_path / name, None) for name in ("orderly", "wild")]
    orderly, wild = (world.connect() for world in worlds)
    coming = worlds[0].coming
    orderly.publish(coming)
    process(orderly)
    shuffled = coming.sample(frac=1.0, random_state=1)
    wild.publish(pd.concat([shuffled, shuffled.tail(300)]))
    process(wild)
    asked = coming.drop_duplicates("customer_id").assign(event_time=coming["event_time"].iloc[-1])
    expected, got = (read_rows(world, asked) for world in worlds)
    pd.testing.assert_frame_equal(got, expected, check_exact=True)


def read_rows(world, asked):
    store = open_feature_store(world.config.runs)
    with open_frame_reader(store.folder, store.redis_url) as reader:
        return reader.read(asked)
