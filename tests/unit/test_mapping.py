"""A user's own file and mapping: what becomes of each column, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from data.fraud_contract import check_transactions
from data.mapping import load_file_mapping, load_mapped_file

MAPPING = """
columns:
  transaction_id: TransactionID
  event_time: {column: TransactionDT, unit: s, origin: 2017-12-01T00:00:00Z}
  customer_id: [card1, addr1]
  amount: TransactionAmt
  is_fraud: isFraud
"""
CSV = """TransactionID,TransactionDT,card1,addr1,TransactionAmt,isFraud,V1,device,flag
2987000,86400,13926,315.0,68.5,0,1.0,mobile,True
2987001,86401.5,2755,,29.0,1,,desktop,False
2987002,86469,4663,330.0,59.0,,2.5,,True
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.csv").write_text(CSV)
    (tmp_path / "mine.yaml").write_text(MAPPING)
    return tmp_path


def load(folder, *, file="mine.csv", mapping=None):
    if mapping is not None:
        (folder / "mine.yaml").write_text(mapping)
    return load_mapped_file(folder / file, mapping=folder / "mine.yaml", label_delay_days=7)


def write_csv(folder, **columns):
    rows = {
        "id": ["a", "b"],
        "time": ["2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"],
        "who": ["x", "y"],
        "paid": [1.0, 2.0],
        "bad": [0, 1],
    }
    pd.DataFrame(rows | columns).to_csv(folder / "mine.csv", index=False)


SIMPLE = """
columns: {transaction_id: id, event_time: time, customer_id: who, amount: paid, is_fraud: bad}
"""


def test_columns_are_renamed_joined_and_counted_from_the_origin(folder):
    transactions, _ = load(folder)
    assert transactions["transaction_id"].tolist() == ["2987000", "2987001", "2987002"]
    assert transactions["customer_id"].tolist() == ["13926|315", "2755|", "4663|330"]
    assert transactions["event_time"].tolist() == [
        pd.Timestamp("2017-12-02T00:00:00Z"),
        pd.Timestamp("2017-12-02T00:00:01.5Z"),
        pd.Timestamp("2017-12-02T00:01:09Z"),
    ]
    assert transactions["amount"].tolist() == [68.5, 29.0, 59.0]


def test_a_row_whose_truth_is_unknown_has_no_label_and_the_others_get_the_delay(folder):
    transactions, labels = load(folder)
    assert labels["transaction_id"].tolist() == ["2987000", "2987001"]
    assert labels["is_fraud"].tolist() == [0, 1]
    assert (labels["label_time"] - transactions["event_time"][:2]).tolist() == [
        pd.Timedelta(days=7)
    ] * 2


def test_every_other_column_passes_through_and_none_of_the_truth(folder):
    transactions, _ = load(folder)
    assert list(transactions.columns[4:]) == ["V1", "device", "flag"]
    checked = check_transactions(*load(folder), max_quarantine_share=0).transactions
    assert checked["V1"].tolist()[0] == 1.0
    assert np.isnan(checked["V1"].tolist()[1])
    assert checked["device"].tolist() == ["mobile", "desktop", None]
    assert checked["flag"].tolist() == [1.0, 0.0, 1.0]


def test_keep_chooses_extra_columns_even_mapped_ones_and_drop_removes(folder):
    transactions, _ = load(folder, mapping=MAPPING + "keep: [card1, V1, isFraud]\ndrop: [V1]\n")
    assert list(transactions.columns) == [
        "transaction_id",
        "event_time",
        "customer_id",
        "amount",
        "card1",
    ]
    assert transactions["customer_id"].tolist() == ["13926|315", "2755|", "4663|330"]


def test_parquet_and_csv_give_the_same(folder):
    pd.read_csv(folder / "mine.csv").to_parquet(folder / "mine.parquet")
    from_csv = check_transactions(*load(folder), max_quarantine_share=0)
    from_parquet = check_transactions(*load(folder, file="mine.parquet"), max_quarantine_share=0)
    pd.testing.assert_frame_equal(from_csv.transactions, from_parquet.transactions)
    pd.testing.assert_frame_equal(from_csv.labels, from_parquet.labels)


def test_ids_are_text_that_keeps_its_zeros_and_loses_a_floats_point(folder):
    write_csv(folder, id=["007", "8"], who=["13926.0", None])
    transactions, _ = load(folder, mapping=SIMPLE)
    assert transactions["transaction_id"].tolist() == ["007", "8"]
    assert transactions["customer_id"].tolist() == ["13926", None]


def test_an_id_of_several_columns_is_missing_only_if_all_are(folder):
    write_csv(folder, who=["x", None], branch=["1", None])
    transactions, _ = load(folder, mapping=SIMPLE.replace("who", "[who, branch]"))
    assert transactions["customer_id"].tolist() == ["x|1", None]


def test_a_label_time_of_the_users_own_is_taken(folder):
    write_csv(folder, told=["2026-03-02T00:00:00Z", "2026-03-05T00:00:00Z"])
    mapping = SIMPLE.replace("is_fraud", "label_time: told, is_fraud")
    _, labels = load(folder, mapping=mapping)
    assert labels["label_time"].dt.day.tolist() == [2, 5]


def test_a_bad_amount_reaches_the_quarantine_as_it_was_written(folder):
    write_csv(folder, paid=["1.5", "n/v"])
    checked = check_transactions(*load(folder, mapping=SIMPLE), max_quarantine_share=1)
    assert checked.quarantine["amount"].tolist()[0] == "n/v"


def test_a_hundred_extra_columns_and_no_device_or_place(folder):
    rng = np.random.default_rng(0)
    extra = {f"V{k}": rng.normal(size=50) for k in range(80)}
    extra |= {f"id_{k}": rng.choice(["a", "b", None], size=50) for k in range(20)}
    write_csv(
        folder,
        id=[f"t{k}" for k in range(50)],
        time=[f"2026-03-01T00:00:{k:02d}Z" for k in range(50)],
        who=["x"] * 50,
        paid=[1.0] * 50,
        bad=[0] * 50,
        **extra,
    )
    checked = check_transactions(*load(folder, mapping=SIMPLE), max_quarantine_share=0)
    assert checked.transactions.shape == (50, 104)
    kinds = checked.transactions.dtypes.astype(str).value_counts()
    assert (kinds["float64"], kinds["object"]) == (81, 22)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("columns: {amount: x", "is not YAML"),
        ("- a\n- b", "starts with 'columns:'"),
        ("columns: {price: x}", "columns.price is not ours; allowed: transaction_id"),
        (SIMPLE.replace("transaction_id: id, ", ""), "columns.transaction_id is missing"),
        (SIMPLE.replace(", is_fraud: bad", ""), "columns.is_fraud is missing"),
        (SIMPLE + "keeep: all", "keeep: Extra inputs"),
        (SIMPLE.replace("amount: paid", "amount: [paid, who]"), "columns.amount takes one column"),
        (SIMPLE.replace("paid", "{column: paid}"), "columns.amount takes the name of a column"),
        (SIMPLE.replace("paid", "3"), "columns.amount"),
        (
            SIMPLE.replace("event_time: time", "event_time: {column: time, uint: s}"),
            "columns.event_time: uint: Extra inputs",
        ),
        (
            SIMPLE.replace("event_time: time", "event_time: {column: time, time_zone: Mars}"),
            "columns.event_time: there is no time zone 'Mars'",
        ),
        (SIMPLE.replace("paid", "pai"), "columns.amount names 'pai', .* did you mean 'paid'?"),
        (SIMPLE + "drop: [V9]", "drop names 'V9', which .* does not have"),
    ],
)
def test_a_wrong_mapping_is_one_line_that_names_file_and_key(folder, mapping, message):
    write_csv(folder)
    with pytest.raises(ValueError, match=message) as error:
        load(folder, mapping=mapping)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unmapped_column_with_one_of_our_names_must_be_mapped_or_dropped(folder):
    write_csv(folder, ip=["1.1.1.1", "1.1.1.2"])
    with pytest.raises(ValueError, match="column 'ip' of the file has the name of one of ours"):
        load(folder, mapping=SIMPLE)
    assert "ip" not in load(folder, mapping=SIMPLE + "drop: [ip]")[0]
    assert "ip" in load(folder, mapping=SIMPLE.replace("amount", "ip: ip, amount"))[0]


def test_a_file_without_any_truth_is_an_error_that_names_the_column(folder):
    write_csv(folder, bad=[None, None])
    with pytest.raises(ValueError, match=r"no row of .*mine.csv has a value in column bad"):
        load(folder, mapping=SIMPLE)


def test_missing_files_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no mapping at .*nowhere.yaml"):
        load_file_mapping(folder / "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"no file at .*nowhere.csv"):
        load(folder, file="nowhere.csv")


def test_local_times_need_a_zone_and_the_error_says_how_to_give_it(folder):
    write_csv(folder, time=["2026-03-01 00:00:00", "2026-03-01 01:00:00"])
    with pytest.raises(
        ValueError, match=r"column time .*\{column: time, time_zone: Europe/Paris\}"
    ):
        load(folder, mapping=SIMPLE)
    mapping = SIMPLE.replace(
        "event_time: time", "event_time: {column: time, time_zone: Asia/Tokyo}"
    )
    transactions, _ = load(folder, mapping=mapping)
    assert transactions["event_time"].iloc[0] == pd.Timestamp("2026-02-28T15:00:00Z")
