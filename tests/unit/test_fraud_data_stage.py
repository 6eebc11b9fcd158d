"""The data stage: what it writes, what it says, and what an interrupted or broken run leaves."""

import json

import pandas as pd
import pytest

from configs.files import hash_file
from configs.schema import load_fraud_config
from data import fraud
from data.fraud import load_labels, load_summary, load_transactions, run_data

SMALL = {"num_customers": 120, "num_merchants": 50, "num_days": 20}


def make_config(runs, **changes):
    return load_fraud_config(
        changes={"runs": str(runs), "data.size": "tiny", "data.sizes": {"tiny": SMALL}} | changes
    )


def write_file(folder, **columns):
    rows = {
        "id": [f"t{k}" for k in range(100)],
        "time": [f"2026-03-01T00:{k // 60:02d}:{k % 60:02d}Z" for k in range(100)],
        "who": ["x"] * 100,
        "paid": [1.0] * 100,
        "bad": [0, 1] * 50,
    }
    pd.DataFrame(rows | columns).to_csv(folder / "mine.csv", index=False)
    (folder / "mine.yaml").write_text(
        "columns: {transaction_id: id, event_time: time, customer_id: who, "
        "amount: paid, is_fraud: bad}\n"
    )
    return {"transactions": folder / "mine.csv", "mapping": folder / "mine.yaml"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return runs, run_data(make_config(runs))


def test_it_writes_what_it_says_and_says_what_it_wrote(run):
    runs, result = run
    names = ["transactions.parquet", "labels.parquet", "quarantine.parquet", "data.json"]
    assert result["wrote"] == [str(runs / name) for name in names]
    assert sorted(path.name for path in runs.iterdir()) == sorted(names)
    assert result["next"] == "throughline fraud features"
    summary = load_summary(runs)
    assert summary == {key: result[key] for key in result if key not in ("wrote", "next")}
    assert json.loads(json.dumps(result)) == result


def test_the_summary_counts_what_the_files_hold(run):
    runs, result = run
    transactions, labels = load_transactions(runs), load_labels(runs)
    assert result["transactions"] == len(transactions)
    assert result["labels"] + result["unlabelled"] == len(transactions)
    assert result["fraud_rate"] == labels["is_fraud"].mean()
    assert result["customers"] == transactions["customer_id"].nunique()
    assert result["merchants"] == transactions["merchant_id"].nunique()
    assert result["days"] == 20
    assert result["columns"] == list(transactions.columns)
    assert result["missing_columns"] == result["extra_columns"] == []
    assert sum(result["patterns"].values()) == result["frauds"] == labels["is_fraud"].sum()
    assert result["quarantined"] == {"transactions": 0, "labels": 0, "reasons": {}}
    assert result["sha256"]["transactions.parquet"] == hash_file(runs / "transactions.parquet")
    assert result["sha256"]["labels.parquet"] == hash_file(runs / "labels.parquet")


def test_times_are_utc_microseconds_on_disk_and_when_loaded(run):
    runs, _ = run
    assert str(load_transactions(runs)["event_time"].dtype) == "datetime64[us, UTC]"
    assert str(load_labels(runs)["label_time"].dtype) == "datetime64[us, UTC]"
    assert load_transactions(runs)["event_time"].is_monotonic_increasing


def test_the_same_config_gives_the_same_bytes(run, tmp_path):
    again = run_data(make_config(tmp_path))
    assert again["sha256"] == run[1]["sha256"]


def test_a_users_file_keeps_its_extra_columns_and_names_the_missing_ones(tmp_path):
    files = write_file(tmp_path, V1=range(100))
    result = run_data(make_config(tmp_path / "runs"), **files)
    assert (result["world"], result["transactions"], result["frauds"]) == ("file", 100, 50)
    assert result["extra_columns"] == ["V1"]
    assert "ip" in result["missing_columns"]
    assert result["merchants"] is None


def test_refused_rows_are_written_with_their_reason(tmp_path):
    files = write_file(tmp_path, paid=[-5.0] + [1.0] * 99)
    result = run_data(make_config(tmp_path / "runs"), **files)
    assert result["transactions"] == 99
    assert result["quarantined"] == {
        "transactions": 1,
        "labels": 1,
        "reasons": {"amount is negative": 1, "its transaction is in quarantine": 1},
    }
    quarantine = pd.read_parquet(tmp_path / "runs" / "quarantine.parquet")
    assert quarantine["reason"].tolist()[0] == "amount is negative"
    assert quarantine["amount"].tolist()[0] == "-5.0"


def test_too_many_refused_rows_stop_the_run_and_leave_the_one_before(tmp_path):
    config = make_config(tmp_path / "runs")
    before = run_data(config, **write_file(tmp_path))
    with pytest.raises(ValueError, match="amount is negative on 2 rows"):
        run_data(config, **write_file(tmp_path, paid=[-5.0, -1.0] + [1.0] * 98))
    assert load_summary(config.runs)["sha256"] == before["sha256"]
    assert hash_file(config.runs / "labels.parquet") == before["sha256"]["labels.parquet"]


def test_an_interruption_while_writing_leaves_the_run_before_whole(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    before = run_data(config)

    def interrupt(path):
        if "quarantine" in path.name:
            raise KeyboardInterrupt
        return hash_file(path)

    monkeypatch.setattr(fraud, "hash_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_data(make_config(tmp_path, seed=8))
    assert load_summary(tmp_path)["sha256"] == before["sha256"]
    for name in ("transactions.parquet", "labels.parquet", "quarantine.parquet"):
        assert hash_file(tmp_path / name) == before["sha256"][name]
    assert len(list(tmp_path.iterdir())) == 4


def test_the_handbook_world_reports_its_counts(tmp_path, monkeypatch):
    small = fraud.simulate_handbook(num_customers=40, num_terminals=300, num_days=20, radius=9.0)
    monkeypatch.setattr(fraud, "simulate_handbook", lambda **_: small)
    result = run_data(make_config(tmp_path), world="handbook")
    assert result["handbook"] == {
        "transactions": len(small.transactions),
        "frauds": int(small.transactions["is_fraud"].sum()),
        "added": small.num_added,
        "final": small.num_final,
    }
    assert result["frauds"] == sum(small.num_added.values())


@pytest.mark.parametrize("load", [load_transactions, load_labels, load_summary])
def test_loading_before_the_stage_has_run_says_what_to_run(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="run 'throughline fraud data' first"):
        load(tmp_path)


def test_a_truncated_file_of_the_run_is_named(run, tmp_path):
    whole = (run[0] / "labels.parquet").read_bytes()
    (tmp_path / "labels.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"labels.parquet is broken .*fraud data' again"):
        load_labels(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transactions": "x.csv"}, "needs --transactions and --mapping; give --mapping"),
        ({"mapping": "x.yaml"}, "needs --transactions and --mapping; give --transactions"),
        ({"world": "moon"}, "world is 'moon'; it must be simulated or handbook"),
        (
            {"world": "handbook", "transactions": "x.csv", "mapping": "x.yaml"},
            "either --world handbook or --transactions",
        ),
    ],
)
def test_arguments_that_do_not_fit_together_are_an_error(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_data(make_config(tmp_path), **arguments)
