"""A file appears whole or not at all."""

import hashlib
import json
import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from configs.files import hash_file, read_json, write_json, write_whole

ROOT = Path(__file__).parents[2]


def test_a_block_that_raises_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with suppress(KeyboardInterrupt), write_whole(path) as part:
        part.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_content_is_not_seen_before_the_block_ends(tmp_path):
    path = tmp_path / "result.txt"
    with write_whole(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"


def test_missing_folders_are_made(tmp_path):
    write_json(tmp_path / "a" / "b" / "result.json", {"x": 1})
    assert read_json(tmp_path / "a" / "b" / "result.json") == {"x": 1}


def test_the_temporary_file_keeps_the_suffix_that_writers_choose_a_format_by(tmp_path):
    with write_whole(tmp_path / "rows.parquet") as part:
        assert part.suffix == ".parquet"
        part.write_bytes(b"")


def test_a_killed_process_leaves_no_half_written_file_under_the_real_name(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from configs.files import write_whole\n"
        "with write_whole(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "result.txt")], cwd=ROOT
    )
    assert finished.returncode == -9
    assert not (tmp_path / "result.txt").exists()


def test_not_a_number_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "result.json", {"score": math.nan})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "reason"), [("{", "is not JSON"), ("[1]", "not list")])
def test_a_file_that_is_not_a_json_object_is_an_error_that_names_it(tmp_path, text, reason):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"result\.json .*{reason}"):
        read_json(path)


def test_json_keeps_letters_beyond_ascii(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"name": "Zürich"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Zürich"}


def test_the_hash_of_a_file_is_the_sha256_of_its_bytes(tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(b"rows" * 100_000)
    assert hash_file(path) == hashlib.sha256(b"rows" * 100_000).hexdigest()
