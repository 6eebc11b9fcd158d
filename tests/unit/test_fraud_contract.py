"""The contract at the door: every rule, and that no row vanishes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fraud_contract import check_transactions

NOON = pd.Timestamp("2026-03-01 12:00", tz="UTC")


def make_transactions(num_rows=3, **columns):
    rows = {
        "transaction_id": [f"t{k}" for k in range(1, num_rows + 1)],
        "event_time": [NOON + pd.Timedelta(hours=k) for k in range(num_rows)],
        "customer_id": ["c1"] * num_rows,
        "amount": [10.0] * num_rows,
    }
    return pd.DataFrame(rows | columns)


def make_labels(transactions, **columns):
    rows = {
        "transaction_id": transactions["transaction_id"],
        "is_fraud": [False] * len(transactions),
        "label_time": transactions["event_time"] + pd.Timedelta(days=7),
    }
    return pd.DataFrame(rows | columns)


def check(transactions, labels=None, share=1.0):
    labels = make_labels(transactions) if labels is None else labels
    return check_transactions(transactions, labels, max_quarantine_share=share)


def reasons_of(checked, source="transactions"):
    rows = checked.quarantine[checked.quarantine["source"] == source]
    return dict(zip(rows["row"], rows["reason"], strict=True))


def test_good_rows_pass_unchanged_and_nothing_is_quarantined():
    transactions = make_transactions(card_type=["debit", None, "credit"], latitude=[1.0, None, -90])
    checked = check(transactions, share=0.0)
    assert checked.transactions["amount"].tolist() == [10.0, 10.0, 10.0]
    assert checked.transactions["card_type"].tolist() == ["debit", None, "credit"]
    assert checked.labels["is_fraud"].dtype == bool
    assert checked.quarantine.empty


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", -0.01, "amount is negative"),
        ("amount", np.inf, "amount is not a finite number up to 1e+12"),
        ("amount", 2e12, "amount is not a finite number up to 1e+12"),
        ("amount", "ten", "amount is not a finite number up to 1e+12"),
        ("amount", None, "amount is missing or unreadable"),
        ("customer_id", None, "customer_id is missing or unreadable"),
        ("customer_id", "", "customer_id is missing or unreadable"),
        ("transaction_id", None, "transaction_id is missing or unreadable"),
        ("event_time", pd.NaT, "event_time is missing or unreadable"),
        ("event_time", pd.Timestamp("1969-12-31", tz="UTC"), "event_time is not in 1970 to 2100"),
        ("latitude", 90.5, "latitude is not in [-90, 90]"),
        ("latitude", "north", "latitude is not in [-90, 90]"),
        ("longitude", -181.0, "longitude is not in [-180, 180]"),
        ("V7", -np.inf, "V7 is infinite"),
    ],
)
def test_a_row_that_breaks_a_rule_is_quarantined_with_the_reason(column, value, reason):
    transactions = make_transactions(latitude=[0.0] * 3, longitude=[0.0] * 3, V7=[0.0] * 3)
    values = transactions[column].tolist()
    kind = transactions["event_time"].dtype if column == "event_time" else object
    transactions[column] = pd.Series([values[0], value, values[2]], dtype=kind)
    if column == "V7":
        transactions[column] = transactions[column].astype(float)
    labels = make_labels(make_transactions())
    checked = check(transactions, labels)
    assert reasons_of(checked) == {2: reason}
    assert checked.transactions["transaction_id"].tolist() == ["t1", "t3"]


def test_zero_is_an_amount():
    assert len(check(make_transactions(amount=[0.0, 0, 1]), share=0.0).transactions) == 3


def test_of_two_rows_with_one_id_the_later_is_quarantined():
    transactions = make_transactions(transaction_id=["t1", "t2", "t1"], amount=[1.0, 2.0, 3.0])
    checked = check(transactions)
    assert reasons_of(checked) == {3: "transaction_id is not unique"}
    assert checked.transactions["amount"].tolist() == [1.0, 2.0]


def test_a_row_that_breaks_two_rules_is_quarantined_once_with_both_reasons():
    checked = check(make_transactions(amount=[1.0, -1.0, 1.0], customer_id=["c", None, "c"]))
    assert reasons_of(checked) == {
        2: "amount is negative; customer_id is missing or unreadable",
    }


def test_the_quarantine_shows_the_row_as_it_came():
    transactions = make_transactions(amount=["1", "12,50", "3"])
    quarantine = check(transactions).quarantine
    row = quarantine[quarantine["source"] == "transactions"].iloc[0]
    assert (row["transaction_id"], row["amount"], row["row"]) == ("t2", "12,50", 2)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"is_fraud": [0, 2, 1]}, "is_fraud is not 0 or 1"),
        ({"is_fraud": ["true", "perhaps", "0"]}, "is_fraud is not 0 or 1"),
        ({"is_fraud": [True, None, False]}, "is_fraud is missing or unreadable"),
        (
            {"transaction_id": ["t1", "t9", "t3"]},
            "no transaction has this transaction_id",
        ),
        ({"transaction_id": ["t1", "t1", "t3"]}, "transaction_id is not unique"),
        ({"transaction_id": ["t1", None, "t3"]}, "transaction_id is missing or unreadable"),
    ],
)
def test_a_label_that_breaks_a_rule_is_quarantined_and_its_transaction_stays(columns, reason):
    transactions = make_transactions()
    checked = check(transactions, make_labels(transactions, **columns))
    assert reasons_of(checked, "labels") == {2: reason}
    assert len(checked.transactions) == 3
    assert len(checked.labels) == 2


def test_a_label_before_its_event_is_quarantined_and_one_at_its_instant_is_not():
    transactions = make_transactions()
    times = transactions["event_time"] + pd.to_timedelta([0, -1, 5], unit="us")
    checked = check(transactions, make_labels(transactions, label_time=times))
    assert reasons_of(checked, "labels") == {2: "label_time is before event_time"}


def test_a_label_follows_its_transaction_into_quarantine():
    checked = check(make_transactions(amount=[1.0, -1.0, 1.0]))
    assert reasons_of(checked, "labels") == {2: "its transaction is in quarantine"}
    assert checked.labels["transaction_id"].tolist() == ["t1", "t3"]


def test_results_are_sorted_by_time_then_id_whatever_the_order_they_came_in():
    transactions = make_transactions(
        transaction_id=["b", "c", "a"], event_time=[NOON, NOON - pd.Timedelta("1s"), NOON]
    )
    checked = check(transactions)
    assert checked.transactions["transaction_id"].tolist() == ["c", "a", "b"]
    assert checked.labels["transaction_id"].tolist() == ["c", "a", "b"]


def test_times_of_another_zone_become_utc_in_microseconds():
    transactions = make_transactions()
    local = transactions["event_time"].dt.tz_convert("Asia/Tokyo")
    checked = check(transactions.assign(event_time=local))
    assert str(checked.transactions["event_time"].dtype) == "datetime64[us, UTC]"
    assert checked.transactions["event_time"].iloc[0] == NOON


@pytest.mark.parametrize("times", [["2026-03-01"] * 3, pd.date_range("2026-03-01", periods=3)])
def test_times_without_a_zone_are_an_error_that_names_the_column(times):
    labels = make_labels(make_transactions())
    with pytest.raises(ValueError, match=r"column event_time must hold times with a time zone"):
        check(make_transactions(event_time=times), labels)


def test_extra_columns_pass_through_as_numbers_or_text():
    extras = {
        "V1": [1, 2, 3],
        "V2": [1.5, None, 2.5],
        "seen": [True, False, True],
        "browser": ["a", None, "b"],
        "maybe": [True, None, False],
        "mixed": ["x", 3, 1.5],
    }
    extra = check(make_transactions(**extras)).transactions
    assert extra["V1"].tolist() == [1.0, 2.0, 3.0]
    assert extra["V2"].isna().tolist() == [False, True, False]
    assert extra["seen"].tolist() == [1.0, 0.0, 1.0]
    assert extra["browser"].tolist() == ["a", None, "b"]
    assert extra["mixed"].tolist() == ["x", "3", "1.5"]
    assert extra["maybe"].isna().tolist() == [False, True, False]
    assert {str(extra[name].dtype) for name in ("V1", "V2", "seen", "maybe")} == {"float64"}


def test_above_the_allowed_share_the_run_stops_with_rule_count_and_examples():
    transactions = make_transactions(num_rows=10, amount=[-1.0, -2.5] + [1.0] * 8)
    with pytest.raises(ValueError, match="amount is negative on 2 rows") as error:
        check(transactions, share=0.1)
    message = str(error.value)
    assert "2 of 10 transactions (20.00%)" in message
    assert "data.max_quarantine_share allows 10.00%" in message
    assert "(t1: -1.0, t2: -2.5)" in message
    assert "\n" not in message


def test_an_example_of_many_lines_is_shown_in_one():
    transactions = make_transactions(amount=["1", "a\nlot " * 50, "3"])
    with pytest.raises(ValueError, match=r"\(t2: a lot a lot") as error:
        check(transactions, share=0.0)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_exactly_the_allowed_share_passes():
    transactions = make_transactions(num_rows=10, amount=[-1.0] + [1.0] * 9)
    assert len(check(transactions, share=0.1).transactions) == 9


def test_too_many_bad_labels_stop_the_run_too():
    transactions = make_transactions()
    labels = make_labels(transactions, is_fraud=[5, 0, 0])
    with pytest.raises(ValueError, match=r"1 of 3 labels .* not 0 or 1 on 1 row \(t1: 5"):
        check(transactions, labels, share=0.3)


def test_a_missing_column_is_named_with_those_there_are():
    transactions = make_transactions().drop(columns="amount")
    with pytest.raises(ValueError, match="transactions have no column amount; they have"):
        check(transactions, make_labels(transactions))


def test_a_label_among_the_transactions_columns_is_refused():
    transactions = make_transactions(is_fraud=[0, 0, 1])
    with pytest.raises(ValueError, match="transactions may not have column is_fraud"):
        check(transactions)


def test_no_rows_are_an_error():
    transactions = make_transactions()
    with pytest.raises(ValueError, match="there are no transactions"):
        check(transactions.head(0), make_labels(transactions))
    with pytest.raises(ValueError, match="there are no labels"):
        check(transactions, make_labels(transactions).head(0))


def test_a_users_column_named_like_one_of_the_quarantines_is_kept_apart():
    transactions = make_transactions(amount=[-1.0, 1.0, 1.0], reason=["gift", "food", "rent"])
    checked = check(transactions)
    assert checked.transactions["reason"].tolist() == ["food", "rent"]
    assert checked.quarantine["reason (input)"].iloc[0] == "gift"


def test_the_callers_frames_are_not_modified():
    transactions = make_transactions(amount=["1", "-2", "x"], V1=[True, False, True])
    labels = make_labels(transactions, is_fraud=["0", "1", "true"])
    before = transactions.copy(), labels.copy()
    check(transactions, labels)
    pd.testing.assert_frame_equal(transactions, before[0])
    pd.testing.assert_frame_equal(labels, before[1])


ids = st.sampled_from(["a", "b", "c", "d", "e", "", None])
instants = st.sampled_from([NOON, NOON - pd.Timedelta("9D"), pd.Timestamp(0, tz="UTC"), pd.NaT])
rows = st.tuples(
    ids,
    instants,
    st.sampled_from(["c1", None, 7]),
    st.sampled_from([0.0, 1.5, -1.0, "x", np.inf, None]),
    st.sampled_from([0.0, 91.0, None]),
)
label_rows = st.tuples(ids, st.sampled_from([True, 0, "1", 3, None]), instants)


@settings(max_examples=80, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8), st.lists(label_rows, min_size=1, max_size=8))
def test_every_row_is_in_the_result_or_in_the_quarantine_and_results_keep_the_rules(rows, labels):
    names = ["transaction_id", "event_time", "customer_id", "amount", "latitude"]
    transactions = pd.DataFrame(rows, columns=names, dtype=object)
    truth = pd.DataFrame(labels, columns=["transaction_id", "is_fraud", "label_time"], dtype=object)
    transactions["event_time"] = transactions["event_time"].astype("datetime64[ns, UTC]")
    truth["label_time"] = truth["label_time"].astype("datetime64[ns, UTC]")
    checked = check(transactions, truth)

    refused = checked.quarantine.groupby("source").size()
    assert len(checked.transactions) + refused.get("transactions", 0) == len(transactions)
    assert len(checked.labels) + refused.get("labels", 0) == len(truth)
    assert not checked.quarantine.duplicated(["source", "row"]).any()
    assert (checked.quarantine["reason"].str.len() > 0).all()

    kept = {row.transaction_id: row for row in checked.transactions.itertuples()}
    assert len(kept) == len(checked.transactions)
    for row in kept.values():
        assert row.transaction_id in {"a", "b", "c", "d", "e"}
        assert 0 <= row.amount <= 1e12
        assert row.customer_id in {"c1", "7"}
        assert row.event_time.year >= 1970
        assert np.isnan(row.latitude) or abs(row.latitude) <= 90
    for label in checked.labels.itertuples():
        assert label.label_time >= kept[label.transaction_id].event_time
        assert label.is_fraud in {True, False}
