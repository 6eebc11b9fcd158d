from __future__ import annotations

import json
import pickle
from collections.abc import Sequence

import pandas as pd
import pytest

from serving.load_address import check_may_be_loaded
from serving.load_http import SERIAL_FIELD
from serving.load_messages import (
    Expected,
    FraudCheck,
    check_answer,
    draw_messages,
    render_bodies,
)
from serving.prediction_log import LOAD_TEST_PREFIX

SERIAL = b"0000000000000042"
GOOD = {
    "transaction_id": "run-0000000000000042",
    "score": 0.5,
    "decision": "review",
    "model_version": "7",
    "reasons": None,
    "degraded_reason": None,
}


def make_transactions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": ["t1", "t2"],
            "event_time": pd.to_datetime(["2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z"]),
            "customer_id": ["ann", "bob"],
            "amount": [12.5, 99.0],
        }
    )


def check(change: dict[str, object], *, row: int = 0, expected: tuple[Expected, ...] = ()):
    """The verdict on a good answer with a change, and what the check has counted by then."""
    judge = FraudCheck(id_prefix="run-", expected=expected)
    error = judge(json.dumps({**GOOD, **change}).encode(), row=row, serial=SERIAL)
    return error, judge.tallies


def is_refused(url: str, *, allow_hosts: Sequence[str] = ()) -> bool:
    try:
        check_may_be_loaded(url, allow_hosts=allow_hosts)
    except ValueError as error:
        return "only goes to this machine" in str(error) and "--allow-host" in str(error)
    return False


def test_a_good_answer_passes_and_its_model_is_counted():
    error, tallies = check({})
    assert error is None
    assert tallies["model_version"] == {"7": 1}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"transaction_id": "run-0000000000000043"}, "wrong transaction id"),
        ({"score": 1.01}, "score outside [0, 1]"),
        ({"score": -0.01}, "score outside [0, 1]"),
        ({"score": None}, "score outside [0, 1]"),
        ({"score": "0.5"}, "score outside [0, 1]"),
        ({"decision": "maybe"}, "unknown decision"),
        ({"model_version": None}, "missing field"),
        ({"degraded_reason": 3}, "missing field"),
    ],
)
def test_a_wrong_answer_is_told_by_kind(change, kind):
    assert check(change)[0] == kind


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"null"])
def test_an_answer_that_is_no_json_object_is_told(body):
    judge = FraudCheck(id_prefix="run-")
    assert judge(body, row=0, serial=SERIAL) == "no JSON object"


def test_a_status_other_than_200_is_told():
    assert check_answer(500, json.dumps(GOOD).encode(), GOOD["transaction_id"]) == "status 500"


def test_a_degraded_answer_is_counted_by_reason_and_not_compared():
    error, tallies = check(
        {"degraded_reason": "store", "score": 0.9}, expected=(Expected(0.5, "review", "7"),)
    )
    assert error is None
    assert tallies["degraded_reason"] == {"store": 1}
    assert tallies["expected"] == {}


@pytest.mark.parametrize(
    ("change", "row", "kind", "compared"),
    [
        ({}, 0, None, 1),
        ({"score": 0.5 + 1e-10}, 0, None, 1),
        ({"score": 0.500001}, 0, "other than expected", 1),
        ({"decision": "approve"}, 0, "other than expected", 1),
        ({"score": 0.9}, 1, None, 0),  # only the first row has an expectation
        ({"score": 0.9, "model_version": "8"}, 0, None, 0),  # another model was promoted
    ],
)
def test_an_answer_is_held_against_the_typed_lanes(change, row, kind, compared):
    error, tallies = check(change, row=row, expected=(Expected(0.5, "review", "7"),))
    assert error == kind
    assert tallies["expected"]["compared"] == compared


def test_a_check_reaches_another_process_with_its_expectations():
    judge = pickle.loads(
        pickle.dumps(FraudCheck(id_prefix="run-", expected=[Expected(0.9, "decline", "7")]))
    )
    assert judge(json.dumps(GOOD).encode(), row=0, serial=SERIAL) == "other than expected"


def test_bodies_are_flat_for_the_fast_lane_and_wrapped_for_the_typed_one():
    messages = [{"transaction_id": "t1", "amount": 12.5}]
    marked = {"transaction_id": "run-" + SERIAL_FIELD.decode(), "amount": 12.5}
    (flat,) = render_bodies(messages, path="/v1/score", id_prefix="run-")
    (wrapped,) = render_bodies(messages, path="/predict", id_prefix="run-")
    assert json.loads(flat) == marked
    assert json.loads(wrapped) == {"transaction": marked}


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:3000", "http://localhost:3000/", "http://[::1]:80", "http://127.9.9.9"],
)
def test_this_machine_may_be_load_tested(url):
    assert not is_refused(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://10.0.0.1:3000",
        "http://0.0.0.0:3000",
        "https://127.0.0.1",
        "http://127.0.0.1@example.com",
        "http://localhost.example.com",
        "127.0.0.1:3000",
        "",
    ],
)
def test_any_other_machine_is_refused(url):
    assert is_refused(url)


@pytest.mark.parametrize("url", ["http://Staging:3000", "http://10.0.0.1", "http://[fd00::1]:80"])
def test_a_machine_that_was_named_may_be_load_tested(url):
    assert not is_refused(url, allow_hosts=["staging", "10.0.0.1", "[FD00::1]"])


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://10.0.0.2", "10.0.0.1"),
        ("http://staging.example.com", "staging"),
        ("http://staging@example.com", "staging"),
        ("https://staging", "staging"),
        ("http:///score", ""),
    ],
)
def test_a_machine_that_was_not_named_is_refused_whatever_else_was(url, named):
    assert is_refused(url, allow_hosts=[named])


def test_invented_requests_follow_the_last_transaction_and_are_marked():
    past = make_transactions()
    messages = draw_messages(past, num_messages=50, seed=3)
    assert {message["customer_id"] for message in messages} == {"ann", "bob"}
    assert len({message["transaction_id"] for message in messages}) == 50
    assert all(message["transaction_id"].startswith(LOAD_TEST_PREFIX) for message in messages)
    times = pd.to_datetime([message["event_time"] for message in messages], format="ISO8601")
    assert times.is_monotonic_increasing
    assert times.min() >= past["event_time"].max()
    assert times.max() <= past["event_time"].max() + pd.Timedelta(hours=1)


def test_requests_may_follow_an_earlier_instant_and_then_know_only_its_past():
    now = pd.Timestamp("2026-03-01T12:30:00Z")
    messages = draw_messages(make_transactions(), num_messages=20, seed=3, now=now)
    assert {message["customer_id"] for message in messages} == {"ann"}
    assert min(pd.Timestamp(message["event_time"]) for message in messages) >= now


def test_without_a_past_there_is_nothing_to_ask():
    with pytest.raises(ValueError, match="no transaction before 2026-03-01 12:00"):
        draw_messages(
            make_transactions(), num_messages=1, seed=0, now=pd.Timestamp("2026-03-01T12:00:00Z")
        )


def test_who_buys_often_is_asked_about_often():
    often = pd.concat([make_transactions().iloc[:1]] * 9 + [make_transactions().iloc[1:]])
    messages = draw_messages(often, num_messages=4000, seed=1)
    share = sum(message["customer_id"] == "ann" for message in messages) / 4000
    assert share == pytest.approx(0.9, abs=0.025)  # five standard errors
