"""The fast lane takes exactly what the typed lane takes, but for the times it says it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serving import fraud_messages, score_messages
from serving.score_messages import (
    Answer,
    AnswerBatch,
    Reason,
    RequestError,
    encode,
    read_transaction,
    read_transactions,
)

EXTRA = {"V1": False, "bank": True}
VALID = {
    "transaction_id": "t1",
    "event_time": "2026-03-01T12:00:00Z",
    "customer_id": "ann",
    "amount": 12.5,
}
MICROSECOND = timedelta(microseconds=1)


def read_typed(body: bytes) -> fraud_messages.Transaction | None:
    """What the typed lane makes of a transaction, or ``None`` where it refuses."""
    try:
        request = fraud_messages.PredictRequest.model_validate_json(
            b'{"transaction":' + body + b"}"
        )
        fraud_messages.check_extra(request.transaction, field=("transaction",), extra=EXTRA)
    except ValidationError:
        return None
    return request.transaction


def read_fast(body: bytes) -> score_messages.Transaction | None:
    try:
        return read_transaction(body, extra=EXTRA)
    except RequestError:
        return None


def assert_same_verdict(body: bytes) -> None:
    """Both lanes refuse, or both make the same transaction of the body."""
    typed, fast = read_typed(body), read_fast(body)
    assert (typed is None) == (fast is None), (body, typed, fast)
    if typed is not None and fast is not None:
        for name in score_messages.Transaction.__struct_fields__:
            if name == "event_time":  # beyond microseconds one rounds and the other cuts off
                assert abs(fast.event_time - typed.event_time) <= MICROSECOND
            else:
                assert getattr(fast, name) == getattr(typed, name), name


texts = st.text(max_size=3) | st.sampled_from(["", "t" * 256, "t" * 257, "ç" * 256, "\u0000", "1"])
numbers = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**13), 10**13)
    | st.sampled_from([0, -0.0, 1e12, 1e12 + 1, 90, 90.0001, -180, 180.0001, 10**400])
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
EDGE_TIMES = [
    "2026-03-01T12:00:00+01:00", "2026-03-01T12:00:00-23:59", "2026-03-01 12:00:00Z",
    "2026-03-01t12:00:00z", "2026-03-01T12:00:00.123456789Z", "2026-03-01T12:00:00",
    "2026-03-01", "1767225600", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z",
    "1969-12-31T23:30:00-01:00", "2100-01-01T00:00:00Z", "2100-01-01T00:00:00.000001Z",
    "2100-01-01T00:30:00+01:00", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00",
    "2026-02-29T00:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T12:00:00+24:00",
]  # fmt: skip
times = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.sampled_from(EDGE_TIMES)
extras = st.dictionaries(
    st.sampled_from(["V1", "bank", "V9", ""]),
    st.none() | numbers | texts | st.booleans() | st.just("b" * 1025),
    max_size=3,
)
fields = {
    "transaction_id": texts | anything,
    "event_time": times | anything,
    "customer_id": texts,
    "amount": numbers | anything,
    "card_type": st.none() | texts | st.sampled_from(["c" * 1024, "c" * 1025]) | anything,
    "merchant_id": st.none() | texts,
    "merchant_category": st.none() | texts,
    "ip": st.none() | texts,
    "device_id": st.none() | texts,
    "latitude": st.none() | numbers,
    "longitude": st.none() | numbers,
    "extra": extras | anything,
    "unheard_of": anything,
}


@st.composite
def bodies(draw):
    """A valid transaction with some fields replaced, and sometimes one missing."""
    changed = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=3))
    document = {**VALID, **{name: draw(fields[name]) for name in changed}}
    for name in draw(st.lists(st.sampled_from(sorted(VALID)), max_size=1)):
        if draw(st.integers(0, 4)) == 0:
            document.pop(name, None)
    return json.dumps(document, ensure_ascii=draw(st.booleans())).encode(errors="replace")


@settings(max_examples=500, deadline=None)
@given(bodies())
@example(json.dumps(VALID).encode())
def test_both_lanes_make_the_same_of_a_body(body):
    assert_same_verdict(body)


@settings(max_examples=200, deadline=None)
@given(bodies(), st.data())
def test_both_lanes_make_the_same_of_a_body_with_bytes_changed(body, data):
    position = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 2))
    put = data.draw(
        st.sampled_from([b"", b"}", b",", b"0", b"\xff", b"\xed\xa0\x80", b"NaN", b"e"])
    )
    assert_same_verdict(body[:position] + put + body[position + cut :])


@pytest.mark.parametrize("time", EDGE_TIMES)
def test_both_lanes_make_the_same_of_times_at_the_edges(time):
    assert_same_verdict(json.dumps({**VALID, "event_time": time}).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xef\xbb\xbf" + json.dumps(VALID).encode()],
)
def test_a_body_that_is_no_transaction_is_refused_by_both_lanes(body):
    assert read_fast(body) is read_typed(body) is None


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("field", ["amount", "latitude", "extra"])
def test_a_number_that_is_not_finite_is_refused_by_both_lanes(field, literal):
    document = VALID | {field: {"V1": "HERE"} if field == "extra" else "HERE"}
    body = json.dumps(document).replace('"HERE"', literal).encode()
    assert read_fast(body) is read_typed(body) is None


@pytest.mark.parametrize(
    "time", ["2026-03-01T12:00Z", "2026-03-01T12:00:00,5Z", "2026-03-01_12:00:00Z"]
)
def test_times_of_iso_8601_that_are_none_of_rfc_3339_are_for_the_typed_lane_only(time):
    body = json.dumps({**VALID, "event_time": time}).encode()
    assert read_typed(body) is not None
    with pytest.raises(RequestError, match=r"Invalid RFC3339 .* at `\$\.event_time`"):
        read_transaction(body, extra=EXTRA)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"amount": -1}, "$.amount"),
        ({"event_time": "1969-12-31T23:59:59Z"}, "$.event_time"),
        ({"extra": {"V9": 1}}, "known: V1, bank - at `$.extra.V9`"),
        ({"extra": {"V1": "high"}}, "Expected `float` - at `$.extra.V1`"),
        ({"extra": {"bank": 3}}, "Expected `str` - at `$.extra.bank`"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_refusal_says_where(changes, named):
    with pytest.raises(RequestError) as caught:
        read_transaction(json.dumps({**VALID, **changes}).encode(), extra=EXTRA)
    assert named in str(caught.value)


def render_batch(*changes: dict[str, object]) -> bytes:
    return json.dumps({"transactions": [{**VALID, **change} for change in changes]}).encode()


def test_a_batch_is_read_in_order():
    body = render_batch({"customer_id": "bob"}, {"customer_id": "ann"})
    rows = read_transactions(body, extra=EXTRA, max_rows=2)
    assert [row.customer_id for row in rows] == ["bob", "ann"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (render_batch(), "$.transactions"),
        (render_batch({}, {}, {}), "has 3 rows; at most 2 are allowed"),
        (render_batch({}, {"amount": -1}), "$.transactions[1].amount"),
        (render_batch({}, {"extra": {"V9": 1}}), "$.transactions[1].extra.V9"),
        (b'{"explain": true}', "explain"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_with_the_row(body, named):
    with pytest.raises(RequestError) as caught:
        read_transactions(body, extra=EXTRA, max_rows=2)
    assert named in str(caught.value)


def test_an_answer_names_its_reasons_only_if_it_has_them():
    plain = Answer("t1", 0.5, "review", "7", None)
    explained = Answer("t1", 0.5, "review", "7", "away", reasons=[Reason("amount_log", 1.5)])
    assert json.loads(encode(AnswerBatch([plain, explained]))) == {
        "predictions": [
            {
                "transaction_id": "t1", "score": 0.5, "decision": "review",
                "model_version": "7", "degraded_reason": None,
            },
            {
                "transaction_id": "t1", "score": 0.5, "decision": "review",
                "model_version": "7", "degraded_reason": "away",
                "reasons": [{"feature": "amount_log", "contribution": 1.5}],
            },
        ]
    }  # fmt: skip
