"""What was accepted is kept once, what was refused is kept with its reason."""

import os
import sqlite3

import pandas as pd
import pytest

from features.stream_archive import Archive, DeadLetters
from features.stream_log import Entry
from features.stream_messages import MAX_LINE_BYTES, encode_transactions


def transactions(*ids, amount=10.0):
    return pd.DataFrame(
        {
            "transaction_id": list(ids),
            "event_time": pd.Timestamp("2026-01-01T00:00:00Z")
            + pd.to_timedelta([int(name[1:]) for name in ids], unit="min"),
            "customer_id": "c1",
            "amount": amount,
        }
    )


def lines(*ids, amount=10.0):
    return [line for _, line in encode_transactions(transactions(*ids, amount=amount))]


@pytest.fixture
def archive(tmp_path):
    return Archive(lambda: tmp_path / "archive")


def test_accepted_lines_come_back_as_transactions_in_time_order(archive):
    archive.append(0, lines("t3", "t1"))
    archive.append(1, lines("t2"))
    pd.testing.assert_frame_equal(archive.load(), transactions("t1", "t2", "t3"), check_dtype=False)


def test_an_archive_without_lines_is_empty(archive):
    assert archive.load().empty
    archive.append(0, [])
    assert archive.load().empty


def test_a_transaction_archived_again_and_in_other_partitions_comes_back_once(archive):
    archive.append(0, lines("t1"))
    archive.append(0, lines("t1"))
    archive.append(1, lines("t1"))
    assert archive.load()["transaction_id"].tolist() == ["t1"]


def test_of_a_transaction_told_twice_the_first_telling_is_kept(archive):
    archive.append(0, lines("t1", amount=10.0))
    archive.append(0, lines("t1", amount=99.0))
    assert archive.load()["amount"].tolist() == [10.0]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_torn_by_a_kill_is_left_out_and_harms_no_other(archive, tmp_path, cut):
    archive.append(0, lines("t1"))
    with (tmp_path / "archive" / "000.jsonl").open("ab") as file:
        file.write(lines("t2")[0][:cut])
    assert archive.load()["transaction_id"].tolist() == ["t1"]
    archive.append(0, lines("t2", "t3"))
    assert archive.load()["transaction_id"].tolist() == ["t1", "t2", "t3"]


def test_what_was_appended_is_on_the_disk_before_anybody_acknowledges_it(
    archive, tmp_path, monkeypatch
):
    synced = []
    monkeypatch.setattr("os.fdatasync", lambda file: synced.append(os.fstat(file).st_size))
    archive.append(0, [b"{}"])
    (file,) = tmp_path.rglob("*.jsonl")
    assert synced == [file.stat().st_size]


def test_an_archive_follows_its_folder_when_that_changes(tmp_path):
    current = [tmp_path / "first"]
    archive = Archive(lambda: current[0])
    archive.append(0, lines("t1"))
    current[0] = tmp_path / "second"
    archive.append(0, lines("t2"))
    assert archive.load()["transaction_id"].tolist() == ["t2"]


@pytest.fixture
def letters(tmp_path):
    opened = DeadLetters(tmp_path / "dead_letters.db")
    yield opened
    opened.close()


def test_letters_are_counted_by_the_first_words_of_their_reason(letters):
    letters.add(0, [(Entry("1", b"x"), "late: 9 s"), (Entry("2", b"y"), "undecodable: x")])
    letters.add(1, [(Entry("1", b"x"), "late: 7 s")])
    assert letters.count() == {"late": 2, "undecodable": 1}


def test_an_entry_refused_again_is_one_letter(letters):
    letters.add(0, [(Entry("1", b"x"), "late: 9 s")])
    letters.add(0, [(Entry("1", b"x"), "late: 9 s")])
    assert letters.count() == {"late": 1}


def test_another_line_at_a_known_position_is_a_letter_too_since_a_log_may_start_anew(letters):
    letters.add(0, [(Entry("1", b"x"), "late: 9 s")])
    letters.add(0, [(Entry("1", b"y"), "late: 9 s")])
    assert letters.count() == {"late": 2}


def test_no_letters_are_counted_as_none(letters):
    letters.add(0, [])
    assert letters.count() == {}


def test_of_a_line_that_is_too_long_the_beginning_is_kept(letters, tmp_path):
    letters.add(0, [(Entry("1", b"x" * (MAX_LINE_BYTES + 9)), "undecodable: longer")])
    connection = sqlite3.connect(tmp_path / "dead_letters.db")
    assert connection.execute("SELECT length(line) FROM dead_letters").fetchone() == (
        MAX_LINE_BYTES,
    )
    connection.close()


def test_letters_that_could_not_be_added_are_added_once_there_is_room(letters, tmp_path):
    connection = sqlite3.connect(tmp_path / "dead_letters.db", isolation_level=None)
    connection.execute(
        "CREATE TRIGGER full BEFORE INSERT ON dead_letters BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with pytest.raises(sqlite3.DatabaseError, match="full"):
        letters.add(0, [(Entry("1", b"x"), "late: 9 s")])
    connection.execute("DROP TRIGGER full")
    connection.close()
    letters.add(0, [(Entry("1", b"x"), "late: 9 s")])
    assert letters.count() == {"late": 1}
