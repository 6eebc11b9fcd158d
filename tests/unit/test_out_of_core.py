"""Windows over files larger than memory: the digits of memory, or one line that says why not."""

from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.benchmark import measure_in_a_process
from data.bench_transactions import write_bench_transactions
from features import event_tables, out_of_core
from features.event_tables import EventColumns, aggregate_table
from features.fraud_history import compute_history
from features.fraud_windows import aggregate_customer_spend
from features.out_of_core import Plan, aggregate_out_of_core

CUSTOMERS = EventColumns("customer_id", keep=("transaction_id",))
DAY = 86_400_000_000

events = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "eve", ""]),
        st.integers(0, 5).map(lambda days: days * 8 * DAY),  # ties and window edges are common
        st.floats(0, 1e6),
        st.integers(0, 3),  # the file it is in
    ),
    min_size=1,
    max_size=40,
)


def make_events(*, customers, times, amounts, zone="UTC"):
    return pa.table(
        {
            "transaction_id": [f"t{row}" for row in range(len(times))],
            "customer_id": customers,
            "event_time": pa.array(times, pa.timestamp("us", tz=zone)),
            "amount": pa.array(amounts, pa.float64()),
        }
    )


def write_files(folder, *tables):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.parquet" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path, row_group_size=7)
    return paths


def cut_into(num_buckets):
    """Stand in for the planner, which cuts small tables into one bucket."""
    plan = Plan(100, num_buckets, max_rows=1000, bytes_per_row=1, disk_bytes=1)
    return mock.patch.object(out_of_core, "plan_buckets", return_value=plan)


def read_sorted(paths):
    result = pa.concat_tables([pq.read_table(path) for path in paths])
    return result.sort_by([("transaction_id", "ascending")]).to_pandas()


compute_spend = partial(
    aggregate_out_of_core, columns=CUSTOMERS, aggregate=aggregate_customer_spend
)


@settings(max_examples=40, deadline=None)
@given(events, st.integers(1, 7), st.integers(1, 50), st.integers(1, 2))
def test_any_cut_into_files_buckets_and_blocks_gives_the_digits_of_one_table_in_memory(
    tmp_path_factory, rows, num_buckets, rows_per_block, threads
):
    folder = tmp_path_factory.mktemp("cut")
    customers, times, amounts, owners = zip(*sorted(rows, key=lambda row: row[3]), strict=True)
    table = make_events(customers=customers, times=times, amounts=amounts)
    tables = [table.filter(np.array(owners) == file) for file in range(4)]
    with cut_into(num_buckets), mock.patch.object(event_tables, "ROWS_PER_BLOCK", rows_per_block):
        paths = compute_spend(write_files(folder / "in", *tables), folder / "out", threads=threads)
    whole = aggregate_table(table, columns=CUSTOMERS, aggregate=aggregate_customer_spend)
    expected = whole.sort_by([("transaction_id", "ascending")]).to_pandas()
    pd.testing.assert_frame_equal(read_sorted(paths), expected, check_exact=True)
    owners_of = [set(pq.read_table(path)["customer_id"].to_pylist()) for path in paths]
    assert sum(map(len, owners_of)) == len(set(customers))  # no customer is in two files


def test_the_values_are_those_of_the_fraud_history(tmp_path):
    random = np.random.default_rng(3)
    table = make_events(
        customers=random.choice(["ann", "bob", "eve"], 300),
        times=np.sort(random.integers(0, 60 * DAY, 300)),
        amounts=random.lognormal(3, 1, 300),
    )
    labels = pd.DataFrame({"transaction_id": [], "is_fraud": [], "label_time": []})
    labels = labels.astype({"is_fraud": bool, "label_time": "datetime64[us, UTC]"})
    history = compute_history(table.to_pandas(), labels)["customer_windows"]
    with cut_into(3):
        paths = compute_spend(write_files(tmp_path, table), tmp_path / "out")
    ours = read_sorted(paths).sort_values(["customer_id", "event_time"], ignore_index=True)
    history = history.sort_values(["customer_id", "event_time"], ignore_index=True)
    pd.testing.assert_frame_equal(ours[history.columns], history, check_exact=True)


@pytest.mark.parametrize(
    "customers",
    [
        pa.array([7, 7, -1], pa.int64()),
        pa.array(["x", "x", "y"]).dictionary_encode(),
        pa.array([b"x", b"x", b"y"]),
    ],
)
def test_ids_may_be_of_any_type(tmp_path, customers):
    table = make_events(customers=customers, times=[0, DAY, DAY], amounts=[1.0, 2.0, 3.0])
    with cut_into(5):
        paths = compute_spend(write_files(tmp_path, table), tmp_path / "out")
    assert read_sorted(paths)["customer_tx_count_7d"].tolist() == [0.0, 1.0, 0.0]


GOOD = make_events(customers=["ann", "ann"], times=[0, 1], amounts=[1.0, 2.0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD.drop_columns("amount"), "1.parquet: no column amount; there are transaction_id"),
        (
            make_events(customers=["ann"], times=[0], amounts=[1.0], zone=None),
            "1.parquet: column event_time holds .* with time zone",
        ),
        (
            make_events(customers=[None, "ann"], times=[0, 1], amounts=[1.0, 2.0]),
            "1.parquet: column customer_id holds 1 nulls",
        ),
        (
            make_events(customers=["ann"], times=[None], amounts=[1.0]),
            "1.parquet: column event_time holds 1 nulls",
        ),
        (
            make_events(customers=["a", "b", "c"], times=[0, 1, 2], amounts=[None, np.nan, 1]),
            "1.parquet: column amount holds 2 values that are no finite number",
        ),
        (
            GOOD.set_column(3, "amount", pa.array(["1.0", "two"])),
            "1.parquet: columns of other types",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_left(tmp_path, table, message):
    files = write_files(tmp_path / "in", GOOD, table)
    with pytest.raises(ValueError, match=message):
        compute_spend(files, tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_nothing_that_looks_whole(tmp_path, failure):
    def fail_on_rows(groups, amounts):
        if amounts.size:
            raise failure
        return aggregate_customer_spend(groups, amounts)

    files = write_files(tmp_path / "in", GOOD)
    with pytest.raises(BaseException, match=r"No space|^$"):
        compute_spend(files, tmp_path / "out", aggregate=fail_on_rows)
    assert [item.name for item in tmp_path.iterdir()] == ["in"]


def test_a_folder_that_holds_something_is_not_touched(tmp_path):
    files = write_files(tmp_path / "in", GOOD)
    with pytest.raises(ValueError, match="is not an empty folder"):
        compute_spend(files, tmp_path / "in")
    assert files[0].exists()


def test_no_files_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="no parquet files"):
        compute_spend([], tmp_path / "out")


def test_too_little_memory_is_an_error_that_says_how_much_would_do(tmp_path):
    files = write_files(tmp_path / "in", GOOD)
    with pytest.raises(ValueError, match=r"give at least 0\.8"):
        compute_spend(files, tmp_path / "out", memory_gb=0.5)


def test_an_entity_larger_than_memory_is_named_before_any_window_is_computed(tmp_path):
    table = make_events(
        customers=["ann"] * 3000 + [f"c{row}" for row in range(1000)],
        times=range(4000),
        amounts=np.ones(4000),
    )
    files = write_files(tmp_path / "in", table)
    with pytest.raises(ValueError, match="customer_id ann alone has 3,000 of 4,000 rows"):
        compute_spend(files, tmp_path / "out", memory_gb=out_of_core.BASE_GB + 0.0005)
    assert not (tmp_path / "out").exists()


def test_a_disk_without_room_is_an_error_before_any_work(tmp_path, monkeypatch):
    files = write_files(tmp_path / "in", GOOD)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"GB free .* make room"):
        compute_spend(files, tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["in"]


def run_within(*, files, folder, memory_gb):
    paths = aggregate_out_of_core(
        files,
        folder,
        columns=EventColumns("card_id"),
        aggregate=aggregate_customer_spend,
        memory_gb=memory_gb,
    )
    return {"num_files": len(paths), "num_rows": sum(pq.read_metadata(p).num_rows for p in paths)}


def test_four_times_the_rows_take_about_the_same_memory(tmp_path):
    files = write_bench_transactions(
        tmp_path / "in", num_rows=4_000_000, seed=1, advance=lambda _: None
    )
    small, large = (
        measure_in_a_process(
            run_within,
            files=files[:num_files],
            folder=tmp_path / f"{num_files}",
            memory_gb=out_of_core.BASE_GB + 0.1,
        )
        for num_files in (1, 4)
    )
    assert large["num_rows"] == 4 * small["num_rows"]
    assert large["num_files"] > small["num_files"] > 1
    assert large["peak_memory_gb"] < 1.2 * small["peak_memory_gb"]  # buckets differ in size
    assert large["peak_memory_gb"] < out_of_core.BASE_GB + 0.1
