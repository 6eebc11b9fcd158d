"""The row kernel against the column-by-column computation it must equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.feast_layout import encode_value
from features.fraud_online import compute_online
from features.fraud_rows import COLUMNS, TILED, UNREADABLE, compile_kernel
from features.fraud_state import CUSTOMER_EVENT, IP_EVENT, LABEL_DAY, MERCHANT_EVENT, pack
from features.row_requests import RowRequests
from features.row_states import RowStates, compute_features
from features.shared_summaries import SharedSummaries
from features.state_summaries import summarise_payments
from features.tiles import append_tiles
from features.windows import DAY, HOUR

NOW = 20_000 * DAY + 5 * HOUR
amounts = st.floats(0, 1e9) | st.sampled_from([0.0, 0.01, 12.5])
codes = st.sampled_from([0, 11, 12, 13, -(1 << 62)])
ages = st.integers(0, 32 * DAY) | st.sampled_from([1, HOUR, DAY, 7 * DAY, 30 * DAY])
coordinates = st.tuples(st.floats(-90, 90), st.floats(-180, 180)) | st.just((np.nan, np.nan))


@st.composite
def customer_states(draw):
    rows = draw(st.lists(st.tuples(ages, amounts, codes, codes, coordinates), max_size=12))
    events = np.zeros(len(rows), CUSTOMER_EVENT)
    for row, (age, amount, merchant, device, place) in enumerate(rows):
        events[row] = (NOW - age, row + 1, amount, merchant, device, *place)
    events = np.sort(events, order="event_time")
    num_tiled = draw(st.integers(0, len(rows)))
    older = events[:num_tiled]
    tiles = append_tiles(pack_none(), older["event_time"], older["amount"]) if num_tiled else None
    return pack(events[num_tiled:], tiles) if rows else None


def pack_none():
    from features.tiles import TILE

    return np.empty(0, TILE)


@st.composite
def simple_states(draw, dtype, with_tiles):
    rows = draw(st.lists(st.tuples(ages, amounts, codes), max_size=12))
    events = np.zeros(len(rows), dtype)
    for row, (age, amount, code) in enumerate(rows):
        value = amount if dtype is MERCHANT_EVENT else code or 14  # every event has a customer
        events[row] = (NOW - age, row + 1, value)
    events = np.sort(events, order="event_time")
    num_tiled = draw(st.integers(0, max(len(rows) - 1, 0))) if with_tiles else 0
    older = events[:num_tiled]
    values = older["amount"] if dtype is MERCHANT_EVENT else None
    tiles = append_tiles(pack_none(), older["event_time"], values) if num_tiled else None
    return pack(events[num_tiled:], tiles) if rows else None


@st.composite
def label_states(draw):
    days = sorted(draw(st.sets(st.integers(0, 40), max_size=6)), reverse=True)
    events = np.zeros(len(days), LABEL_DAY)
    for row, day in enumerate(days):
        num = draw(st.integers(1, 500))
        events[row] = (NOW - NOW % DAY - day * DAY, num, draw(st.integers(0, num)))
    return pack(events) if days else None


requests = st.tuples(
    st.integers(-2 * DAY, 3 * DAY) | st.just(0), amounts, codes, codes, codes, codes, coordinates
)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            requests,
            customer_states(),
            simple_states(IP_EVENT, True),
            simple_states(MERCHANT_EVENT, True),
            label_states(),
            label_states(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_row_kernel_equals_the_columns_it_is_held_to(rows):
    asked, states, wanted = build_rows(rows)
    features, _ = compute_features(states, asked)
    with np.errstate(all="ignore"):
        expected = compute_online(*wanted)
    for position, name in enumerate(COLUMNS):
        np.testing.assert_allclose(
            features[:, position], expected[name], rtol=1e-9, atol=1e-7, err_msg=name
        )


def build_rows(rows):
    """Lay rows out for the kernel, and for ``compute_online``."""
    integers, floats = [], []
    for (offset, amount, merchant, device, ip, category, place), *_ in rows:
        integers.append((NOW + offset, merchant, device, ip, category))
        floats.append((amount, *place))
    integers, floats = np.array(integers), np.array(floats)
    num = len(rows)
    summaries = SharedSummaries()
    *_, events, labels, categories = zip(*rows, strict=True)
    summaries.put_merchants([f"m{row}" for row in range(num)], events, labels)
    for row, category in enumerate(categories):
        summaries.put_category(f"c{row}", category)
    merchants = [f"m{row}" if code else None for row, code in enumerate(integers[:, 1])]
    categories = [f"c{row}" if code else None for row, code in enumerate(integers[:, 4])]
    located = summaries.locate(merchants, categories)
    asked = RowRequests(["c"] * num, ["i"] * num, merchants, categories, integers, floats)
    states = RowStates([wrap(r[1]) for r in rows], [wrap(r[2]) for r in rows], located)
    names = ("event_time_us", "merchant_code", "device_code", "ip_code", "category_code")
    columns = {name: integers[:, i].copy() for i, name in enumerate(names)}
    columns |= {n: floats[:, i].copy() for i, n in enumerate(("amount", "latitude", "longitude"))}
    kinds = ("customer_events", "ip_events", "merchant_events", "merchant_labels")
    by_kind = {kind: [row[i + 1] for row in rows] for i, kind in enumerate(kinds)}
    for kind in ("merchant_events", "merchant_labels"):  # a request that names none has no state
        named = zip(by_kind[kind], merchants, strict=True)
        by_kind[kind] = [state if name else None for state, name in named]
    return asked, states, ({**by_kind, "category_labels": [row[5] for row in rows]}, columns)


def wrap(state):
    return b"" if state is None else encode_value(state)


def test_a_payment_that_dwarfs_the_others_leaves_no_trace_once_its_month_is_over():
    events = np.zeros(3, MERCHANT_EVENT)
    events["event_time"] = NOW - 31 * DAY, NOW - 2, NOW - 1
    events["amount"] = 1e15, 0.01, 0.03
    summaries = SharedSummaries()
    summaries.put_merchants(["m"], [pack(events)], [None])
    located = summaries.locate(["m"], [None])
    asked = RowRequests(
        ["c"], [None], ["m"], [None], np.array([[NOW, 1, 0, 0, 0]]), np.array([[1.0, 0.0, 0.0]])
    )
    features, _ = compute_features(RowStates([b""], [b""], located), asked)
    assert features[0, COLUMNS.index("merchant_amount_mean_30d")] == pytest.approx(0.02, rel=1e-12)


@pytest.mark.parametrize("field", ["customer", "ip"])
@pytest.mark.parametrize(
    "state",
    [
        *(b"x" * 8, b"x" * 24, b"TLSTATE2" * 2),
        pack(np.zeros(1, IP_EVENT))[:-1],
        pack(b"\0" * 8),  # a part of an event
        b"TLSTATE2" + np.array([2**62, 2**62], np.int64).tobytes(),  # lengths whose sum overflows
    ],
)
def test_bytes_that_are_no_state_cost_their_row_its_features_and_no_other(state, field):
    bad, fine = encode_value(state), encode_value(pack(np.zeros(1, IP_EVENT)))
    located = SharedSummaries().locate([None] * 2, [None] * 2)
    asked = RowRequests(
        *(["c", "d"], ["i", "j"], [None] * 2, [None] * 2),
        *(np.array([[NOW, 0, 0, 1, 0]] * 2), np.array([[1.0, 0.0, 0.0]] * 2)),
    )
    customers, ips = (
        ([bad, b""], [fine, fine]) if field == "customer" else ([b"", b""], [bad, fine])
    )
    features, marks = compute_features(RowStates(customers, ips, located), asked)
    assert marks.tolist() == [UNREADABLE, 0]
    assert np.isnan(features[0]).all()
    assert not np.isnan(features[1, COLUMNS.index("ip_unique_customers_24h")])


def test_an_unknown_entity_is_no_error():
    located = SharedSummaries().locate([None], [None])
    asked = RowRequests(
        ["c"], ["i"], [None], [None], np.array([[NOW, 0, 0, 1, 0]]), np.array([[1.0, 0.0, 0.0]])
    )
    _, marks = compute_features(RowStates([b""], [b""], located), asked)
    assert marks.tolist() == [0]


def test_a_state_with_tiles_is_marked():
    events = np.zeros(2, CUSTOMER_EVENT)
    events["event_time"] = NOW - 5 * HOUR, NOW - 1
    tiles = append_tiles(pack_none(), events["event_time"][:1], events["amount"][:1])
    located = SharedSummaries().locate([None], [None])
    asked = RowRequests(
        ["c"], [None], [None], [None], np.array([[NOW, 0, 0, 0, 0]]), np.array([[1.0, 0.0, 0.0]])
    )
    _, marks = compute_features(RowStates([wrap(pack(events[1:], tiles))], [b""], located), asked)
    assert marks.tolist() == [TILED]
    assert UNREADABLE != TILED
    assert compile_kernel() is compile_kernel()


def test_a_summary_holds_as_many_words_as_it_says():
    assert summarise_payments(None).size == 3 + 0 + 1 + 2


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, *(place << 10 for place in range(1, 40)), -1]), min_size=17))
def test_different_ones_among_many_events_are_counted_though_their_codes_ask_for_one_place(codes):
    events = np.zeros(len(codes), IP_EVENT)
    events["event_time"], events["customer"] = NOW - 1, codes
    located = SharedSummaries().locate([None], [None])
    asked = RowRequests(
        ["c"], ["i"], [None], [None], np.array([[NOW, 0, 0, 1, 0]]), np.array([[1.0, 0.0, 0.0]])
    )
    features, _ = compute_features(RowStates([b""], [wrap(pack(events))], located), asked)
    assert features[0, COLUMNS.index("ip_unique_customers_24h")] == len(set(codes) - {0})
