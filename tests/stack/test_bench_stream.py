"""``throughline bench stream``, small, as a user would run it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stack


@pytest.mark.usefixtures("redis_url")  # skipped, or failed, where there is no redis-server
def test_the_stream_bench_measures_all_four_and_finds_every_state_right(tmp_path):
    file = tmp_path / "stream.json"
    small = ("--customers=60", "--merchants=30", "--rows=600", "--rate=100", "--seconds=1")
    subprocess.run(
        [sys.executable, "-m", "throughline", "bench", "stream", *small, f"--json={file}"],
        check=True,
        capture_output=True,
    )
    result = json.loads(file.read_text())
    names = ["ours, Redis", "ours, SQLite", "Feast SDK, Redis", "ours, Redis, live at 100/s"]
    assert [row["name"] for row in result["rows"]] == names
    assert [row["transactions"] for row in result["rows"]] == [540, 540, 54, 100]
    wrong = {target["name"]: target["value"] for target in result["targets"]}
    assert wrong["states_unlike_an_offline_build"] == 0
