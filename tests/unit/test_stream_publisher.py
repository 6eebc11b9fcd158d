"""Scored transactions reach the stream once the log lets them, and what is lost is counted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from features.connections import connect_redis
from features.redis_log import RedisLog
from features.stream_log import FileLog
from features.stream_messages import decode
from serving import stream_publisher
from serving.fraud_messages import Transaction as TypedTransaction
from serving.prediction_log import LOAD_TEST_PREFIX
from serving.score_messages import Transaction
from serving.stream_publisher import StreamPublisher, encode_scored

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NOON_US = 1_772_366_400_250_000  # date --date 2026-03-01T12:00Z +%s, and 250 ms


def make_transactions(*ids: str) -> list[Transaction]:
    return [
        Transaction(transaction_id=name, event_time=NOON, customer_id="ann", amount=5.0)
        for name in ids
    ]


class GatedLog:
    """A log of one partition that takes nothing until it is told to."""

    num_partitions = 1

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.lines: list[bytes] = []

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        self.asked.set()
        self.gate.wait()
        self.lines += lines.get(0, [])


class AbsentLog(GatedLog):
    """A log that is away until its gate opens."""

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:
        self.asked.set()
        if not self.gate.is_set():
            raise OSError(28, "No space left on device")
        self.lines += lines.get(0, [])


class RefusingLog(GatedLog):
    """A log that will never take anything."""

    def append(self, lines: Mapping[int, Sequence[bytes]]) -> None:  # noqa: ARG002
        raise PermissionError("not yours")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def read_ids(lines: Sequence[bytes]) -> list[str]:
    return [json.loads(line)["transaction_id"] for line in lines]


def test_a_scored_transaction_becomes_a_line_that_the_processor_reads():
    whole = Transaction(
        transaction_id="t1",
        event_time=NOON,
        customer_id="ann",
        amount=12.5,
        card_type="credit",
        merchant_id="m1",
        merchant_category="grocery",
        ip="10.0.0.1",
        device_id="d1",
        latitude=1.5,
        longitude=-2.5,
    )
    ((message, line),) = encode_scored([whole], available_time=NOON_US + 7)
    assert decode(line) == message
    assert json.loads(line) == {
        "transaction_id": "t1",
        "event_time": NOON_US,
        "available_time": NOON_US + 7,
        "customer_id": "ann",
        "amount": 12.5,
        "card_type": "credit",
        "merchant_id": "m1",
        "merchant_category": "grocery",
        "ip": "10.0.0.1",
        "device_id": "d1",
        "latitude": 1.5,
        "longitude": -2.5,
    }


def test_both_lanes_transactions_become_the_same_line():
    body = {"transaction_id": "t1", "event_time": NOON.isoformat(), "customer_id": "ann"}
    typed = TypedTransaction.model_validate({**body, "amount": 3.0, "merchant_id": "m1"})
    fast = Transaction("t1", NOON, "ann", 3.0, merchant_id="m1")
    lines = [line for _, line in encode_scored([typed, fast], available_time=1)]
    assert lines[0] == lines[1]


def test_the_inventions_of_a_load_test_stay_out_of_the_stream(tmp_path):
    log = FileLog(tmp_path / "log", num_partitions=1)
    publisher = StreamPublisher(log, max_pending=10)
    publisher.append(make_transactions(f"{LOAD_TEST_PREFIX}1", "t1"), 1)
    publisher.close()
    lines = [entry.line for entry in log.read(0, max_entries=10)]
    assert read_ids(lines) == ["t1"]
    assert publisher.counts[:3] == (1, 0, 0)


def test_more_than_may_wait_is_dropped_and_counted_and_never_waited_for():
    log = GatedLog()
    publisher = StreamPublisher(log, max_pending=3)
    publisher.append(make_transactions("a", "b"), 1)
    assert log.asked.wait(20)  # the log holds the thread up, with two transactions in hand
    publisher.append(make_transactions("c", "d"), 1)  # four would wait: dropped whole
    publisher.append(make_transactions("e"), 1)
    assert publisher.counts[:3] == (0, 3, 2)
    log.gate.set()
    publisher.close()
    assert read_ids(log.lines) == ["a", "b", "e"]
    assert publisher.counts[:3] == (3, 0, 2)


def test_closing_publishes_all_that_is_queued(tmp_path):
    log = FileLog(tmp_path / "log", num_partitions=1)
    publisher = StreamPublisher(log, max_pending=100_000)
    names = [f"t{number}" for number in range(2500)]
    for start in range(0, 2500, 100):
        publisher.append(make_transactions(*names[start : start + 100]), 1)
    publisher.close()
    assert read_ids([entry.line for entry in log.read(0, max_entries=5000)]) == names
    assert publisher.counts[:3] == (2500, 0, 0)


def test_what_is_scored_after_the_close_is_dropped_and_counted(tmp_path):
    publisher = StreamPublisher(FileLog(tmp_path / "log", num_partitions=1), max_pending=10)
    publisher.close()
    publisher.append(make_transactions("late"), 1)
    assert publisher.counts[:3] == (0, 0, 1)


def test_a_log_that_is_away_is_waited_for():
    log = AbsentLog()
    publisher = StreamPublisher(log, max_pending=10)
    publisher.append(make_transactions("a"), 1)
    assert log.asked.wait(20)
    publisher.append(make_transactions("b"), 1)
    assert publisher.counts[:3] == (0, 2, 0)
    log.gate.set()
    wait_until(lambda: publisher.counts.published == 2)
    assert read_ids(log.lines) == ["a", "b"]
    publisher.close()


def test_closing_does_not_wait_for_a_log_that_stays_away(monkeypatch):
    monkeypatch.setattr(stream_publisher, "CLOSE_SECONDS", 0.2)
    publisher = StreamPublisher(AbsentLog(), max_pending=10)
    publisher.append(make_transactions("a", "b"), 1)
    publisher.close()
    assert publisher.counts[:3] == (0, 0, 2)


def test_a_log_that_refuses_costs_its_transactions_and_not_the_thread(tmp_path):
    log = RefusingLog()
    publisher = StreamPublisher(log, max_pending=10)
    publisher.append(make_transactions("a"), 1)
    wait_until(lambda: publisher.counts.dropped == 1)
    log.append = FileLog(tmp_path / "log", num_partitions=1).append
    publisher.append(make_transactions("b"), 1)
    publisher.close()
    assert publisher.counts[:3] == (1, 0, 1)


@pytest.mark.stack
def test_what_is_scored_while_redis_is_away_is_in_the_stream_when_it_is_back(own_redis):
    log = RedisLog(connect_redis(own_redis.url), num_partitions=2)
    publisher = StreamPublisher(log, max_pending=10)
    publisher.append(make_transactions("before"), 1)
    wait_until(lambda: publisher.counts.published == 1)
    own_redis.stop()
    publisher.append(make_transactions("during"), 1)
    time.sleep(0.3)  # tries, and fails
    assert publisher.counts[:3] == (1, 1, 0)
    own_redis.start()
    wait_until(lambda: publisher.counts.published == 2)
    publisher.close()
    reader = RedisLog(connect_redis(own_redis.url), num_partitions=2)
    entries = [entry for partition in range(2) for entry in reader.read(partition, max_entries=100)]
    assert read_ids([entry.line for entry in entries]) == ["before", "during"]
