from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from serving.prediction_log import (
    LOAD_TEST_PREFIX,
    PredictionLog,
    ScoredBatch,
    encode_batch,
    get_prediction_folder,
    load_predictions,
)

ROOT = Path(__file__).resolve().parents[2]
NEVER = 3600.0  # a flush period the tests do not reach


def make_batch(*ids: str, degraded_reason: str | None = None, second: int = 0) -> ScoredBatch:
    rows = len(ids)
    return ScoredBatch(
        prediction_time=datetime(2026, 3, 1, 12, 0, second, 250_000, tzinfo=UTC),
        model_version="7",
        arm="champion",
        transactions=pd.DataFrame(
            {
                "transaction_id": list(ids),
                "event_time": pd.to_datetime(["2026-03-01T11:59:59.5Z"] * rows),
                "amount": [12.5] * rows,
                "customer_id": ["ann"] * rows,
            }
        ),
        features=pd.DataFrame(
            {
                "amount_log": [2.5] * rows,
                "customer_amount_mean_7d": [float("nan")] * rows,
                "card_type": ["credit"] * (rows - 1) + [None],
            }
        ),
        scores=[0.25] * rows,
        decisions=["approve"] * rows,
        degraded_reason=degraded_reason,
        latency_ms=1.5,
    )


def open_log(folder: Path, *, max_pending: int = 100) -> PredictionLog:
    return PredictionLog(folder, flush_seconds=NEVER, max_pending=max_pending)


def test_a_record_is_one_line_of_json_with_null_for_what_is_missing():
    lines = encode_batch(make_batch("t1", "t2")).decode().splitlines()
    assert [json.loads(line)["transaction_id"] for line in lines] == ["t1", "t2"]
    assert json.loads(lines[1]) == {
        "prediction_time": "2026-03-01T12:00:00.250000Z",
        "transaction_id": "t2",
        "event_time": "2026-03-01T11:59:59.500000Z",
        "amount": 12.5,
        "model_version": "7",
        "arm": "champion",
        "features": {"amount_log": 2.5, "customer_amount_mean_7d": None, "card_type": None},
        "score": 0.25,
        "decision": "approve",
        "degraded_reason": None,
        "latency_ms": 1.5,
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
    assert features.columns.tolist() == ["amount_log", "customer_amount_mean_7d", "card_type"]
    assert features["customer_amount_mean_7d"].isna().all()
    assert features["customer_amount_mean_7d"].dtype == float
    pd.testing.assert_index_equal(predictions.index, features.index)


def test_features_that_differ_between_models_are_missing_where_they_were_not_used(tmp_path):
    log = open_log(tmp_path)
    log.append(make_batch("t1"))
    batch = make_batch("t2", second=1)
    batch.features["V1"] = 3.0
    log.append(batch)
    log.close()
    _, features = load_predictions(tmp_path)
    assert features["V1"].isna().tolist() == [True, False]


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
    assert load_predictions(tmp_path)[0]["transaction_id"].tolist() == ["t1", "t2", "t5"]


def test_records_are_on_disk_after_the_flush_period_without_being_asked(tmp_path):
    log = PredictionLog(tmp_path, flush_seconds=0.02, max_pending=10)
    log.append(make_batch("t1"))
    deadline = time.monotonic() + 5
    while log.counts.pending and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(load_predictions(tmp_path)[0]) == 1
    log.close()


def test_a_closed_log_drops_and_counts_what_comes_later(tmp_path):
    log = open_log(tmp_path)
    log.close()
    log.append(make_batch("t1"))
    assert log.counts == (0, 0, 1)


def test_a_truncated_last_line_is_set_aside_and_counted(tmp_path):
    lines = encode_batch(make_batch("t1", "t2"))
    (tmp_path / "a.jsonl").write_bytes(lines[:-20])
    predictions, features = load_predictions(tmp_path)
    assert predictions["transaction_id"].tolist() == ["t1"]
    assert len(features) == 1
    assert predictions.attrs["num_truncated"] == 1


@pytest.mark.parametrize("line", [b"nonsense", b'{"transaction_id": 1}', b""])
def test_a_finished_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(encode_batch(make_batch("t1")) + line + b"\n")
    with pytest.raises(ValueError, match="line 2 is no prediction record"):
        load_predictions(tmp_path)


def test_a_load_tests_inventions_are_left_out(tmp_path):
    log = open_log(tmp_path)
    log.append(make_batch("t1", f"{LOAD_TEST_PREFIX}1"))
    log.close()
    assert load_predictions(tmp_path)[0]["transaction_id"].tolist() == ["t1"]


def test_two_logs_in_one_folder_write_to_segments_of_their_own(tmp_path):
    logs = [open_log(tmp_path), open_log(tmp_path)]
    for number, log in enumerate(logs):
        log.append(make_batch(f"t{number}", second=number))
        log.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert load_predictions(tmp_path)[0]["transaction_id"].tolist() == ["t0", "t1"]


def test_a_write_that_fails_half_way_leaves_whole_lines_and_counts_the_rest(tmp_path, monkeypatch):
    log = open_log(tmp_path)
    log.append(make_batch("t1"))
    log.flush()
    real_write = os.write

    def fill_the_disk(handle: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(28, "No space left on device")
        return real_write(handle, content[:-50])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fill_the_disk)
        log.append(make_batch("t2"))
        log.flush()
    log.append(make_batch("t3", second=1))
    log.close()
    predictions, _ = load_predictions(tmp_path)
    assert predictions["transaction_id"].tolist() == ["t1", "t3"]
    assert predictions.attrs["num_truncated"] == 0
    assert log.counts == (2, 0, 1)


def test_a_batch_that_cannot_be_encoded_does_not_stop_the_writer(tmp_path):
    log = PredictionLog(tmp_path, flush_seconds=0.01, max_pending=10)
    log.append(make_batch("t1"))
    bad = make_batch("t2")
    bad.scores.clear()
    bad.scores.append(object())  # type: ignore[arg-type]
    log.flush()
    log.append(bad)
    deadline = time.monotonic() + 5
    while not log.counts.dropped and time.monotonic() < deadline:
        time.sleep(0.01)
    log.append(make_batch("t3", second=1))
    log.close()
    assert load_predictions(tmp_path)[0]["transaction_id"].tolist() == ["t1", "t3"]


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from serving.prediction_log import PredictionLog
from tests_unit_prediction_log import make_batch
log = PredictionLog(Path({folder!r}), flush_seconds=0.05, max_pending=10**6)
number = 0
while True:
    log.append(make_batch(*(f"t{{number + i}}" for i in range(20))))
    number += 20
    print(log.counts.written, flush=True)
    time.sleep(0.001)
"""


def test_a_process_killed_with_9_keeps_every_record_up_to_its_last_flush(tmp_path):
    folder = tmp_path / "predictions"
    script = WRITER.format(root=str(ROOT), folder=str(folder))
    (tmp_path / "tests_unit_prediction_log.py").write_bytes(Path(__file__).read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
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
    predictions, _ = load_predictions(folder)
    numbers = [int(name[1:]) for name in predictions["transaction_id"]]
    assert numbers == list(range(len(numbers)))  # nothing missing in between
    assert len(numbers) >= written  # what was reported as written is there
