"""The windows benchmark at a tiny size: every engine answers the same, and misses are said."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import throughline
from configs.files import read_json
from data.bench_transactions import write_bench_transactions
from features import bench_windows
from features.window_engines import ENGINES, FEATURES
from features.window_measurements import compare_answers


def run(monkeypatch, capsys, *arguments):
    for name in throughline.ENVIRONMENT:  # set for good by main, were it not undone
        monkeypatch.setenv(name, throughline.ENVIRONMENT[name])
    monkeypatch.setattr(sys, "argv", ["throughline", "bench", "windows", *arguments])
    with pytest.raises(SystemExit) as caught:
        throughline.main()
    return caught.value.code, *capsys.readouterr()


def write_transactions(folder, *, num_rows=3000, seed=1):
    return write_bench_transactions(folder, num_rows=num_rows, seed=seed, advance=lambda _: None)


def test_the_command_prints_and_writes_rows_and_targets_and_cleans_up(
    monkeypatch, capsys, tmp_path
):
    result = tmp_path / "out" / "windows.json"
    sizes = ["--rows=2000", "--out-of-core-rows=4000", f"--folder={tmp_path}/work"]
    code, out, _ = run(monkeypatch, capsys, *sizes, "--peer-rows=0", f"--json={result}")
    assert code == 0
    assert "ratio to duckdb at 2k" in out
    document = read_json(result)
    assert [row["name"] for row in document["rows"]] == [
        "throughline, 2k",
        "throughline out of core, 400",
        "throughline out of core, 4k",
    ]
    targets = {target["name"]: target for target in document["targets"]}
    assert targets["ratio_to_duckdb_at_2k"]["met"] is False  # no peer was measured: not met
    assert targets["out_of_core_peak_memory_gb"]["met"] is True
    assert result.with_suffix(".svg").read_text().count("<svg") == 1
    assert document["wrote"] == [str(result.with_suffix(".svg")), str(result)]
    assert list((tmp_path / "work").iterdir()) == []


def test_the_help_says_what_goes_in_and_what_comes_out(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--help")
    assert code == 0
    for part in ("In:", "Out:", "Example: throughline bench windows", "Next", "--json"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=0"], "--rows"),
        (["--rows=1000000000000"], "GB free and 200000.0 GB may be needed"),
        (["--memory-gb=0.1"], "--memory-gb"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    folder = f"--folder={tmp_path}/work"
    code, out, err = run(monkeypatch, capsys, folder, "--peer-rows=0", *arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"throughline"}))
def test_a_peer_answers_what_we_answer(tmp_path, engine):
    pytest.importorskip(engine)
    (path,) = write_transactions(tmp_path / "in")
    for name in ("throughline", engine):
        answers = pa.table(ENGINES[name](pq.read_table(path))())
        pq.write_table(answers, tmp_path / f"{name}.parquet")
    assert compare_answers(tmp_path / "throughline.parquet", tmp_path / f"{engine}.parquet") < 1e-12


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_windows, "find_spec", lambda _: None)
    monkeypatch.setattr(bench_windows, "measure_in_a_process", lambda *_, **__: {"seconds": 1.0})
    rows = bench_windows._measure_in_memory(tmp_path, 1000, peer_rows=1000, seed=1)
    assert [row.get("note", "") for row in rows] == [
        "",
        *["not installed; it is in the extra `bench`"] * 3,
    ]


def write_answers(path, value, *, ids=(0, 1)):
    columns = {name: np.array([1.0, value]) for name in FEATURES}
    pq.write_table(pa.table({"transaction_id": np.array(ids), **columns}), path)
    return path


@pytest.mark.parametrize(("value", "difference"), [(4.0, 0.0), (5.0, 0.25), (np.nan, np.inf)])
def test_a_difference_is_relative_to_ours_and_infinite_where_a_value_is_missing(
    tmp_path, value, difference
):
    ours = write_answers(tmp_path / "ours.parquet", 4.0)
    theirs = write_answers(tmp_path / "theirs.parquet", value)
    assert compare_answers(ours, theirs) == difference


def test_answers_are_matched_by_transaction_not_by_place(tmp_path):
    ours = write_answers(tmp_path / "ours.parquet", 4.0)
    theirs = write_answers(tmp_path / "theirs.parquet", 4.0, ids=(1, 0))
    assert compare_answers(ours, theirs) == 3.0


def test_transactions_are_in_time_order_across_files_and_the_same_for_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr("data.bench_transactions.ROWS_PER_FILE", 700)
    first = pq.read_table(write_transactions(tmp_path / "a", num_rows=2000))
    again = pq.read_table(write_transactions(tmp_path / "b", num_rows=2000))
    other = pq.read_table(write_transactions(tmp_path / "c", num_rows=2000, seed=2))
    assert first.equals(again)
    assert not first.equals(other)
    assert first["transaction_id"].to_pylist() == list(range(2000))
    assert first.to_pandas()["event_time"].is_monotonic_increasing


def test_few_cards_make_many_of_the_transactions_as_in_life(tmp_path):
    rows = pq.read_table(write_transactions(tmp_path, num_rows=200_000)).to_pandas()
    counts = rows["card_id"].value_counts()
    assert counts.head(len(counts) // 10).sum() > 0.25 * len(rows)
    assert rows["event_time"].dt.hour.between(7, 22).mean() > 0.8
