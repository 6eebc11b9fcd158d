from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from data.fraud_columns import TRANSACTION_COLUMNS
from serving.fraud_messages import (
    MAX_LISTED_ERRORS,
    MAX_REPORTED_ERRORS,
    PredictBatchRequest,
    PredictRequest,
    Transaction,
    check_extra,
    shorten,
)

VALID = {
    "transaction_id": "t1",
    "event_time": "2026-03-01T12:00:00Z",
    "customer_id": "ann",
    "amount": 12.5,
}


def read(**changes: object) -> Transaction:
    body = json.dumps({"transaction": {**VALID, **changes}})
    return PredictRequest.model_validate_json(body).transaction


def find_wrong_fields(body: str) -> set[tuple[str | int, ...]]:
    with pytest.raises(ValidationError) as caught:
        PredictRequest.model_validate_json(body)
    return {tuple(error["loc"]) for error in shorten(caught.value).errors()}


def find_wrong_extra(extra: dict[str, object]) -> list[tuple[str | int, ...]]:
    known = {"V1": False, "bank": True}
    try:
        check_extra(read(extra=extra), field=("transactions", 3), extra=known)
    except ValidationError as error:
        return [tuple(item["loc"]) for item in error.errors()]
    return []


def test_the_fields_of_a_message_are_the_columns_of_the_contract_and_extra():
    assert set(Transaction.model_fields) == {*TRANSACTION_COLUMNS, "extra"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "12.5"),
        ("amount", True),
        ("amount", -0.01),
        ("amount", 1.1e12),
        ("amount", None),
        ("event_time", "2026-03-01T12:00:00"),
        ("event_time", "2026-03-01"),
        ("event_time", "yesterday"),
        ("event_time", 1767225600),
        ("event_time", "1767225600"),
        ("event_time", "1767225600.5"),
        ("event_time", "1969-12-31T23:59:59Z"),
        ("event_time", "2100-01-01T00:00:01Z"),
        ("event_time", "0001-01-01T00:00:00+05:00"),
        ("event_time", "9999-12-31T23:59:59-05:00"),
        ("transaction_id", ""),
        ("transaction_id", "t" * 257),
        ("transaction_id", 7),
        ("customer_id", None),
        ("latitude", 90.01),
        ("longitude", -180.01),
        ("ip", ""),
        ("card_type", 3),
        ("unheard_of", 1),
    ],
)
def test_a_field_that_does_not_fit_is_refused_by_name(field, value):
    body = json.dumps({"transaction": {**VALID, field: value}})
    assert find_wrong_fields(body) == {("transaction", field)}


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_a_number_that_is_not_finite_is_refused_by_name(literal):
    body = json.dumps({"transaction": {**VALID, "amount": "HERE"}}).replace('"HERE"', literal)
    assert find_wrong_fields(body) == {("transaction", "amount")}


@pytest.mark.parametrize("field", sorted(VALID))
def test_a_required_field_that_is_missing_is_named(field):
    body = json.dumps({"transaction": {name: VALID[name] for name in VALID if name != field}})
    assert find_wrong_fields(body) == {("transaction", field)}


def test_an_unknown_field_beside_the_transaction_is_named():
    assert find_wrong_fields(json.dumps({"transaction": VALID, "explian": True})) == {("explian",)}


def test_a_time_in_another_zone_becomes_the_same_instant_in_utc():
    time = read(event_time="2026-03-01T13:00:00+01:00").event_time
    assert time == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert time.tzinfo is UTC


def test_what_was_not_sent_is_none_and_no_extra():
    transaction = read()
    sent = transaction.model_dump(exclude_unset=True).keys()
    assert sent == VALID.keys()
    unsent = transaction.model_dump(exclude=set(VALID))
    assert unsent.pop("extra") == {}
    assert set(unsent.values()) == {None}


@pytest.mark.parametrize(
    ("name", "value"), [("V9", 1.0), ("V1", "high"), ("bank", 3.0)], ids=["unknown", "text", "code"]
)
def test_an_extra_column_the_features_do_not_know_is_refused_by_name(name, value):
    assert find_wrong_extra({name: value}) == [("transactions", 3, "extra", name)]


@pytest.mark.parametrize("extra", [{}, {"V1": None}, {"bank": None}, {"V1": 2.0, "bank": "b"}])
def test_an_extra_column_may_be_null_or_left_out(extra):
    assert find_wrong_extra(extra) == []


def test_no_more_errors_are_told_than_the_limit_and_none_repeats_the_input():
    body = json.dumps({"transaction": {**VALID, **{f"secret{i}": "s3cret" for i in range(50)}}})
    with pytest.raises(ValidationError) as caught:
        PredictRequest.model_validate_json(body)
    short = shorten(caught.value)
    assert short.error_count() == MAX_REPORTED_ERRORS
    assert "s3cret" not in str(short)


def test_a_flood_of_wrong_fields_is_counted_not_listed():
    flood = {f"f{i}": 1 for i in range(MAX_LISTED_ERRORS + 1)}
    with pytest.raises(ValidationError) as caught:
        PredictRequest.model_validate_json(json.dumps({"transaction": {**VALID, **flood}}))
    (error,) = shorten(caught.value).errors()
    assert error["msg"] == f"the message has {MAX_LISTED_ERRORS + 1} wrong fields"


def test_a_batch_stops_at_its_first_wrong_transaction():
    body = json.dumps({"transactions": [VALID, {}, {}]})
    with pytest.raises(ValidationError) as caught:
        PredictBatchRequest.model_validate_json(body)
    assert {error["loc"][1] for error in caught.value.errors()} == {1}
