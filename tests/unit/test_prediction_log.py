from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.fraud_selection import FeatureSet
from serving.prediction_log import (
    LOAD_TEST_PREFIX,
    PredictionLog,
    ScoredBatch,
    get_prediction_folder,
    load_predictions,
)
from serving.prediction_records import build_records, build_schema
from serving.prediction_segment import SegmentWriter, read_segment

ROOT = Path(__file__).resolve().parents[2]
NEVER = 3600.0  # a flush period the tests do not reach
FEATURES = FeatureSet(
    names=("amount_log", "customer_amount_mean_7d", "card_type"),
    categorical=("card_type",),
    dropped={},
)
NOON = pd.Timestamp("2026-03-01T12:00:00Z")


def make_batch(*ids: str, degraded_reason: str | None = None, second: int = 0) -> ScoredBatch:
    rows = len(ids)
    return ScoredBatch(
        prediction_time_us=int(NOON.timestamp() * 1e6) + second * 1_000_000 + 250_000,
        model_version="7",
        arm="champion",
        transaction_ids=list(ids),
        event_times_us=np.full(rows, int(NOON.timestamp() * 1e6) - 500_000),
        amounts=np.full(rows, 12.5),
        features=np.tile([2.5, np.nan], (rows, 1)),
        categories=[["credit"] * (rows - 1) + [None]],
        scores=np.full(rows, 0.25),
        decisions=["approve"] * rows,
        degraded_reasons=[degraded_reason] * rows,
        latency_ms=np.full(rows, 1.5),
    )


def open_log(
    folder: Path, *, max_pending: int = 100, feature_set: FeatureSet = FEATURES
) -> PredictionLog:
    return PredictionLog(
        folder, feature_set=feature_set, flush_seconds=NEVER, max_pending=max_pending
    )


def write_log(folder: Path, *batches: ScoredBatch) -> Path:
    """Write a segment, one flush per batch, and return it."""
    log = open_log(folder)
    before = set(folder.iterdir())
    for batch in batches:
        log.append(batch)
        log.flush()
    log.close()
    (segment,) = set(folder.iterdir()) - before
    return segment


def read_ids(folder: Path) -> list[str]:
    return load_predictions(folder)[0]["transaction_id"].tolist()


def test_a_segment_is_an_arrow_stream_of_columns_that_any_reader_of_arrow_reads(tmp_path):
    segment = write_log(tmp_path, make_batch("t1", "t2"))
    with pa.OSFile(str(segment)) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    assert [row["transaction_id"] for row in rows] == ["t1", "t2"]
    assert np.isnan(rows[1]["features"].pop("customer_amount_mean_7d"))
    assert rows[1] == {
        "prediction_time": NOON + pd.Timedelta("250ms"),
        "transaction_id": "t2",
        "event_time": NOON - pd.Timedelta("500ms"),
        "amount": 12.5,
        "model_version": "7",
        "arm": "champion",
        "score": 0.25,
        "decision": "approve",
        "degraded_reason": None,
        "latency_ms": 1.5,
        "outcome_share": 1.0,
        "features": {"amount_log": 2.5, "card_type": None},
    }


def test_what_was_appended_is_read_back_in_two_frames_with_one_index(tmp_path):
    log = open_log(tmp_path)
    log.append(make_batch("t2", degraded_reason="online store unavailable", second=2))
    log.append(make_batch("t1", second=1))
    log.close()
    predictions, features = load_predictions(tmp_path)
    assert predictions["transaction_id"].tolist() == ["t1", "t2"]
    assert predictions["degraded_reason"].tolist() == [None, "online store unavailable"]
    assert predictions["prediction_time"].dtype == "datetime64[us, UTC]"
    assert predictions["event_time"].dtype == "datetime64[us, UTC]"
    assert predictions["event_time"].iloc[0] == NOON - pd.Timedelta("500ms")
    assert features.columns.tolist() == ["amount_log", "customer_amount_mean_7d", "card_type"]
    assert features["customer_amount_mean_7d"].isna().all()
    assert features["customer_amount_mean_7d"].dtype == float
    pd.testing.assert_index_equal(predictions.index, features.index)


NUMBERS = st.floats(width=64)
WORDS = st.none() | st.text(max_size=4)


@st.composite
def scored_batches(draw):
    rows = draw(st.integers(1, 4))

    def column(values):
        return draw(st.lists(values, min_size=rows, max_size=rows))

    return ScoredBatch(
        prediction_time_us=draw(st.integers(0, 2**40)),
        model_version=draw(st.text(max_size=2)),
        arm=draw(st.sampled_from(["champion", "challenger"])),
        transaction_ids=column(st.text(max_size=5)),
        event_times_us=np.array(column(st.integers(-(2**40), 2**50)), np.int64),
        amounts=np.array(column(NUMBERS)),
        features=np.array(column(st.tuples(NUMBERS, NUMBERS))).reshape(rows, 2),
        categories=[column(WORDS)],
        scores=np.array(column(st.floats(0, 1))),
        decisions=column(st.sampled_from(["approve", "review", "decline"])),
        degraded_reasons=column(WORDS),
        latency_ms=np.array(column(st.floats(0, 1e6))),
    )


@settings(max_examples=60, deadline=None)
@given(flushes=st.lists(st.lists(scored_batches(), min_size=1, max_size=3), max_size=3))
def test_every_value_of_every_batch_comes_back_bit_by_bit(tmp_path_factory, flushes):
    folder = tmp_path_factory.mktemp("log")
    log = open_log(folder)
    for batches in flushes:
        for batch in batches:
            log.append(batch)
        log.flush()
    log.close()
    predictions, features = load_predictions(folder)
    expected = sorted((b for bs in flushes for b in bs), key=lambda b: b.prediction_time_us)

    def joined(name):
        return [value for batch in expected for value in getattr(batch, name)]

    def to_bits(values):
        return np.array(values, np.float64).view(np.int64).tolist()

    times = predictions["prediction_time"].astype("int64").tolist()
    assert times == [b.prediction_time_us for b in expected for _ in b.transaction_ids]
    assert predictions["event_time"].astype("int64").tolist() == joined("event_times_us")
    for name, attribute in (
        ("transaction_id", "transaction_ids"),
        ("decision", "decisions"),
        ("degraded_reason", "degraded_reasons"),
    ):
        assert predictions[name].tolist() == joined(attribute)
    for name, attribute in (("amount", "amounts"), ("score", "scores")):
        assert to_bits(predictions[name]) == to_bits(joined(attribute))
    for column, name in enumerate(FEATURES.numeric[: len(features.columns)]):
        wanted = [row[column] for batch in expected for row in batch.features]
        assert to_bits(features[name]) == to_bits(wanted)
    words = [word for batch in expected for word in batch.categories[0]]
    there = features["card_type"].tolist() if words else []
    assert [None if pd.isna(word) else word for word in there] == words
    assert predictions.attrs["num_truncated"] == 0


def test_feature_sets_of_several_stores_are_read_together(tmp_path):
    write_log(tmp_path, make_batch("t1"))
    wider = FeatureSet(("amount_log", "V1", "bank"), categorical=("bank",), dropped={})
    log = open_log(tmp_path, feature_set=wider)
    other = dataclasses.replace(make_batch("t2", second=1), categories=[["north"]])
    log.append(dataclasses.replace(other, features=np.array([[2.5, 3.0]])))
    log.close()
    _, features = load_predictions(tmp_path)
    assert features["amount_log"].tolist() == [2.5, 2.5]
    assert features["V1"].tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)
    assert features["bank"].tolist() == [None, "north"]


def test_a_feature_that_was_a_number_and_became_a_word_is_read_as_both(tmp_path):
    write_log(tmp_path, make_batch("t1"))
    changed = FeatureSet(("card_type", "amount_log"), categorical=("amount_log",), dropped={})
    log = open_log(tmp_path, feature_set=changed)
    batch = dataclasses.replace(make_batch("t2", second=1), categories=[["much"]])
    log.append(dataclasses.replace(batch, features=np.array([[1.0]])))
    log.close()
    assert load_predictions(tmp_path)[1]["amount_log"].tolist() == [2.5, "much"]


def test_a_log_that_does_not_exist_has_no_predictions(tmp_path):
    predictions, features = load_predictions(get_prediction_folder(tmp_path))
    assert len(predictions) == len(features) == 0
    assert "transaction_id" in predictions.columns
    assert predictions.attrs["num_truncated"] == 0


def test_a_full_queue_drops_whole_batches_and_counts_their_records(tmp_path):
    log = open_log(tmp_path, max_pending=3)
    log.append(make_batch("t1", "t2"))
    log.append(make_batch("t3", "t4"))
    log.append(make_batch("t5"))
    assert log.counts == (0, 3, 2)
    log.flush()
    assert log.counts == (3, 0, 2)
    log.close()
    assert read_ids(tmp_path) == ["t1", "t2", "t5"]


def test_the_writer_writes_by_itself_after_the_flush_period(tmp_path):
    log = PredictionLog(tmp_path, feature_set=FEATURES, flush_seconds=0.02, max_pending=10)
    log.append(make_batch("t1"))
    wait_until(lambda: not log.counts.pending)
    assert read_ids(tmp_path) == ["t1"]
    log.close()


def test_a_closed_log_drops_and_counts_what_comes_later(tmp_path):
    log = open_log(tmp_path)
    log.close()
    log.append(make_batch("t1"))
    assert log.counts == (0, 0, 1)


def test_a_batch_that_does_not_fit_the_features_does_not_stop_the_writer(tmp_path):
    log = open_log(tmp_path)
    log.append(dataclasses.replace(make_batch("t1"), scores=np.array([0.5, 0.5])))
    log.flush()
    log.append(dataclasses.replace(make_batch("t2"), features=np.zeros((1, 3))))
    log.flush()
    assert log.counts == (0, 0, 2)
    log.append(make_batch("t3"))
    log.close()
    assert read_ids(tmp_path) == ["t3"]


def test_appending_from_several_threads_loses_nothing(tmp_path):
    log = PredictionLog(tmp_path, feature_set=FEATURES, flush_seconds=0.001, max_pending=10**6)

    def append_some(name: str) -> None:
        for number in range(200):
            log.append(make_batch(f"{name}{number}"))

    threads = [threading.Thread(target=append_some, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert log.counts == (600, 0, 0)
    assert set(read_ids(tmp_path)) == {f"{name}{number}" for name in "abc" for number in range(200)}


def test_every_prefix_of_a_segment_gives_its_whole_batches_and_counts_the_rest(tmp_path):
    one = write_log(tmp_path, make_batch("t1", "t2")).read_bytes()
    both = write_log(tmp_path, make_batch("t1", "t2"), make_batch("t3")).read_bytes()
    end = len(b"\xff\xff\xff\xff\0\0\0\0")  # the mark of the end
    schema, first, second = build_schema(FEATURES).serialize().size, len(one) - end, len(both) - end
    cut = tmp_path / "cut.arrows"
    for size in range(len(both) + 1):
        cut.write_bytes(both[:size])
        segment = read_segment(cut)
        ids = [name for batch in segment.batches for name in batch["transaction_id"].to_pylist()]
        assert ids == ["t1", "t2", "t3"][: 2 * (size >= first) + (size >= second)]
        assert segment.is_truncated == (size not in (0, schema, first, second, len(both)))


def test_what_a_killed_process_left_unfinished_is_counted_over_all_segments(tmp_path):
    for name in ("t1", "t2", "t3"):
        segment = write_log(tmp_path, make_batch(name), make_batch(f"{name}b"))
        if name != "t2":
            segment.write_bytes(segment.read_bytes()[:-20])
    predictions, _ = load_predictions(tmp_path)
    assert predictions["transaction_id"].tolist() == ["t1", "t2", "t2b", "t3"]
    assert predictions.attrs["num_truncated"] == 2


def test_a_tail_of_zeros_as_a_power_cut_leaves_is_set_aside_and_counted(tmp_path):
    segment = write_log(tmp_path, make_batch("t1"))
    segment.write_bytes(segment.read_bytes()[:-8] + bytes(512))
    predictions, _ = load_predictions(tmp_path)
    assert predictions["transaction_id"].tolist() == ["t1"]
    assert predictions.attrs["num_truncated"] == 1


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_no_byte_of_a_segment_can_change_unnoticed(tmp_path, flip):
    segment = write_log(tmp_path, make_batch("t1"), make_batch("t2"))
    content = segment.read_bytes()

    def is_unnoticed(position: int) -> bool:
        damaged = bytearray(content)
        damaged[position] ^= flip
        segment.write_bytes(damaged)
        try:
            found = read_segment(segment)
        except ValueError as error:
            return str(segment) not in str(error)
        return not found.is_truncated

    assert [position for position in range(len(content)) if is_unnoticed(position)] == []


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_segment_with_a_hole_in_its_middle_is_named(tmp_path, place):
    batches = [make_batch(*(f"t{flush}{row}" for row in range(50))) for flush in range(5)]
    segment = write_log(tmp_path, *batches)
    content = bytearray(segment.read_bytes())
    start = int(len(content) * place)
    content[start : start + 1000] = bytes(1000)
    segment.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{segment} is a damaged prediction log"):
        load_predictions(tmp_path)


def test_a_message_whose_size_was_damaged_is_no_unfinished_tail_if_others_follow(tmp_path):
    segment = write_log(tmp_path, make_batch("t1"), make_batch("t2"))
    content = bytearray(segment.read_bytes())
    place = build_schema(FEATURES).serialize().size  # of the first message after the schema
    content[place + 6] = 0x7F  # its metadata now claims to be longer than the file
    segment.write_bytes(content)
    with pytest.raises(ValueError, match=f"byte {place} begins no message"):
        load_predictions(tmp_path)


@pytest.mark.parametrize("content", [b"nonsense", b'{"transaction_id": 1}\n', b"\x01" * 100])
def test_a_file_that_was_never_a_segment_is_named(tmp_path, content):
    (tmp_path / "a.arrows").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.arrows is a damaged prediction log"):
        load_predictions(tmp_path)


def test_an_arrow_stream_of_something_else_is_named(tmp_path):
    batch = pa.record_batch({"a": [1.0]})
    with (
        pa.OSFile(str(tmp_path / "a.arrows"), "wb") as sink,
        pa.ipc.new_stream(sink, batch.schema) as stream,
    ):
        stream.write_batch(batch)
    with pytest.raises(ValueError, match=r"a\.arrows"):
        load_predictions(tmp_path)


def test_a_segment_of_an_earlier_release_is_named_rather_than_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl was written by an earlier release"):
        load_predictions(tmp_path)


def test_what_was_said_in_the_shadow_is_read_only_by_who_asks_for_it(tmp_path):
    answered, shadowed = make_batch("t1", "t2"), make_batch("t1", second=1)
    write_log(tmp_path, answered, dataclasses.replace(shadowed, arm="shadow", model_version="8"))
    predictions, features = load_predictions(tmp_path)
    assert predictions["arm"].tolist() == ["champion", "champion"]
    assert len(features) == 2
    predictions, features = load_predictions(tmp_path, with_shadow=True)
    assert predictions["transaction_id"].tolist() == ["t1", "t2", "t1"]
    assert predictions["arm"].tolist() == ["champion", "champion", "shadow"]
    assert len(features) == 3


def test_outcome_shares_are_read_back_and_are_one_where_nothing_is_said(tmp_path):
    known = dataclasses.replace(make_batch("t1", "t2"), outcome_shares=np.array([0.0, 0.25]))
    write_log(tmp_path, known, make_batch("t3", second=1))
    assert load_predictions(tmp_path)[0]["outcome_share"].tolist() == [0.0, 0.25, 1.0]


def test_a_segment_from_before_there_were_outcome_shares_is_read_beside_new_ones(tmp_path):
    write_log(tmp_path, dataclasses.replace(make_batch("t2", second=1), outcome_shares=np.zeros(1)))
    records = build_records([make_batch("t1")], schema=build_schema(FEATURES))
    earlier = records.drop_columns(["outcome_share"])
    segment = SegmentWriter(tmp_path / "2026-01-01-a-0.arrows", schema=earlier.schema)
    segment.append(earlier)
    segment.close()
    predictions, _ = load_predictions(tmp_path)
    assert predictions["transaction_id"].tolist() == ["t1", "t2"]
    assert predictions["outcome_share"].tolist() == [1.0, 0.0]


def test_a_load_tests_inventions_are_left_out(tmp_path):
    write_log(tmp_path, make_batch("t1", f"{LOAD_TEST_PREFIX}1"), make_batch(LOAD_TEST_PREFIX))
    assert read_ids(tmp_path) == ["t1"]
    assert len(load_predictions(tmp_path)[1]) == 1


def test_two_logs_in_one_folder_write_to_segments_of_their_own(tmp_path):
    for number in range(2):
        write_log(tmp_path, make_batch(f"t{number}", second=number))
    assert len(list(tmp_path.iterdir())) == 2
    assert read_ids(tmp_path) == ["t0", "t1"]


def test_a_process_start_writes_one_segment_however_often_it_flushes(tmp_path):
    write_log(tmp_path, *(make_batch(f"t{number}") for number in range(5)))
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unfinished_flush_in_the_middle_of_the_day_is_readable_meanwhile(tmp_path):
    log = open_log(tmp_path)
    log.append(make_batch("t1"))
    log.flush()
    assert read_ids(tmp_path) == ["t1"]
    assert load_predictions(tmp_path)[0].attrs["num_truncated"] == 0
    log.close()


def test_a_words_dictionary_holds_each_word_once():
    records = build_records(
        [make_batch("t1", "t2"), make_batch("t3")], schema=build_schema(FEATURES)
    )
    assert records["model_version"].dictionary.to_pylist() == ["7"]
    assert records["decision"].dictionary.to_pylist() == ["approve"]


SCRIPT = """
import resource, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from serving.prediction_log import PredictionLog
from tests_unit_prediction_log import FEATURES, make_batch
"""

WRITER = """
log = PredictionLog(Path({folder!r}), feature_set=FEATURES, flush_seconds=0.02, max_pending=10**6)
number = 0
while True:
    log.append(make_batch(*(f"t{{number + i}}" for i in range(20))))
    number += 20
    print(log.counts.written, flush=True)
    time.sleep(0.001)
"""

FULL_DISK = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = PredictionLog(Path({folder!r}), feature_set=FEATURES, flush_seconds=3600, max_pending=10**6)
def write(*ids):
    log.append(make_batch(*ids))
    log.flush()
write("t1")
(segment,) = Path({folder!r}).iterdir()
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, limit[1]))
write(*(f"lost{{i}}" for i in range(30)))
size = segment.stat().st_size
write(*(f"lost{{i}}" for i in range(30)))
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
write("t2")
log.close()
print(size, *log.counts)
"""


def start(script: str, *, tmp_path: Path, folder: Path) -> subprocess.Popen[str]:
    (tmp_path / "tests_unit_prediction_log.py").write_bytes(Path(__file__).read_bytes())
    script = (SCRIPT + script).format(root=str(ROOT), folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )


def wait_until(is_done) -> None:
    deadline = time.monotonic() + 5
    while not is_done() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_process_killed_with_9_keeps_every_record_up_to_its_last_flush(tmp_path):
    folder = tmp_path / "predictions"
    process = start(WRITER, tmp_path=tmp_path, folder=folder)
    assert process.stdout is not None
    written = 0
    for line in process.stdout:
        written = int(line)
        if written >= 2000:
            break
    os.kill(process.pid, signal.SIGKILL)
    written = max([written, *(int(line) for line in process.stdout if line.strip().isdigit())])
    process.wait()
    process.stdout.close()
    numbers = [int(name[1:]) for name in read_ids(folder)]
    assert numbers == list(range(len(numbers)))  # nothing missing in between
    assert len(numbers) >= written  # what was reported as written is there


def test_a_full_disk_costs_only_what_did_not_fit_and_is_counted(tmp_path):
    folder = tmp_path / "predictions"
    process = start(FULL_DISK, tmp_path=tmp_path, folder=folder)
    said, _ = process.communicate(timeout=60)
    size, *counts = map(int, said.split())
    assert counts == [2, 0, 60]
    predictions, _ = load_predictions(folder)
    assert predictions["transaction_id"].tolist() == ["t1", "t2"]
    assert predictions.attrs["num_truncated"] == 0
    first, second = sorted(folder.iterdir())  # the failed attempts in between left no file
    assert first.stat().st_size == size  # the segment that failed was left as it was, whole
    assert second.stat().st_size > 0
