"""A lease's holder reads a state once; once anything went wrong it knows nothing any more."""

from __future__ import annotations

import math
import time

import msgspec

from features import held_states
from features.fraud_state import CUSTOMER_EVENT, encode_id, unpack
from features.held_states import HeldStates
from features.sqlite_states import SqliteStates
from features.state_store import Update
from features.stream_archive import Archive, DeadLetters
from features.stream_batch import StreamCounts, merge_batch
from features.stream_log import FileLog, publish
from features.stream_messages import Lateness, StreamTransaction
from features.stream_processor import ProcessorSettings, StreamProcessor
from tests.unit.feast_tables import make_feast_tables


class Store:
    """Notes which customers it is asked for; none is known."""

    def __init__(self):
        self.asked = []

    def read(self, entities, states):
        self.asked.append(list(entities["customer_id"]))
        return {state: [None for _ in entities["customer_id"]] for state in states}


def read(held, *customers):
    return held.read({"customer_id": customers}, ["customer_events"])["customer_events"]


def test_what_was_read_or_written_is_not_read_again():
    held = HeldStates(store := Store())
    assert read(held, "ann", "bob") == [None, None]
    held.keep([Update("customer_events", "bob", b"new", 0)])
    assert read(held, "bob", "cid", "ann") == [b"new", None, None]
    assert read(held, "ann", "bob", "cid") == [None, b"new", None]
    assert store.asked == [["ann", "bob"], ["cid"]]


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(held_states, "MAX_BYTES", 10)
    held = HeldStates(store := Store())
    for size in (9, 11, 10):
        read(held, "ann")
        held.keep([Update("customer_events", "ann", b"x" * size, 0)])
    read(held, "ann")
    assert len(store.asked) == 2  # at first, and after the eleven bytes


def make_transaction(name):
    now = time.time_ns() // 1000
    message = StreamTransaction(name, now, now, "ann", 1.0)
    return message, msgspec.json.encode(message)


def test_what_another_processor_wrote_meanwhile_is_read_anew(tmp_path):
    make_feast_tables(tmp_path / "online.db")
    states, other = (SqliteStates(tmp_path / "online.db") for _ in range(2))
    states.mark_whole()
    log = FileLog(tmp_path / "log", num_partitions=1)
    processor = StreamProcessor(
        log=log,
        states=states,
        archive=Archive(lambda: tmp_path / "archive"),
        dead_letters=DeadLetters(tmp_path / "letters.db"),
        settings=ProcessorSettings(100, 0.001, 0.0, 3600, Lateness(math.inf, math.inf)),
        is_temporary=lambda _: False,
    )
    events = iter(["the first was read", "nothing was left", "the other came"])

    def intervene():
        if next(events, None) == "nothing was left":
            (held,) = processor._leases.values()
            other.release(held)  # as if it had run out
            lease = other.acquire(0, seconds=3600)
            other.write(merge(HeldStates(other), "second"), lease=lease)
            other.release(lease)
            publish(log, [make_transaction("third")])
        return processor.counts.accepted == 2

    publish(log, [make_transaction("first")])
    processor.run(should_stop=intervene)
    (state,) = read(other, "ann")
    known = set(unpack(state, CUSTOMER_EVENT)["transaction"])
    assert known == {encode_id(name) for name in ("first", "second", "third")}


def merge(held, name):
    (message, _) = make_transaction(name)
    return merge_batch(held, [message], partition=0, num_partitions=1, counts=StreamCounts())
