from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hdrh.histogram import HdrHistogram

from configs.schema import load_fraud_config
from serving.load_report import MAX_LATENCY_US, Measurement, describe_load, plot_latency
from serving.loadtest import check_answer, check_is_loopback, draw_messages, run_load
from serving.prediction_log import LOAD_TEST_PREFIX

GOOD = {
    "transaction_id": "t1",
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


def is_refused(url: str) -> bool:
    try:
        check_is_loopback(url)
    except ValueError as error:
        return "only goes to this machine" in str(error)
    return False


def test_a_good_answer_passes():
    assert check_answer(200, json.dumps(GOOD).encode(), "t1") is None


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"transaction_id": "t2"}, "wrong transaction id"),
        ({"score": 1.01}, "score outside [0, 1]"),
        ({"score": None}, "score outside [0, 1]"),
        ({"decision": "maybe"}, "unknown decision"),
        ({"model_version": None}, "missing field"),
    ],
)
def test_a_wrong_answer_is_told_by_kind(change, kind):
    assert check_answer(200, json.dumps({**GOOD, **change}).encode(), "t1") == kind


def test_an_answer_that_is_no_json_object_is_told():
    assert check_answer(200, b"<html>", "t1") == "no JSON object"
    assert check_answer(200, b"[]", "t1") == "no JSON object"
    assert check_answer(500, json.dumps(GOOD).encode(), "t1") == "status 500"


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


def test_a_load_test_of_nobody_says_what_to_start(tmp_path):
    make_transactions().to_parquet(tmp_path / "transactions.parquet")
    config = load_fraud_config(changes={"runs": str(tmp_path)})
    with pytest.raises(ValueError, match="no fraud service answers at http://127"):
        run_load(config, url="http://127.0.0.1:9")


def test_percentiles_agree_with_numpy_to_the_histograms_three_digits():
    generator = np.random.default_rng(0)
    latencies_us = generator.gamma(2.0, 3000.0, size=5001).astype(int) + 1
    histogram = HdrHistogram(1, MAX_LATENCY_US, 3)
    for latency in latencies_us:
        histogram.record_value(int(latency))
    measured = Measurement(latencies=histogram, requests=5001, seconds=10.002)
    summary = describe_load(measured)
    for key, percentile in [("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99), ("p99_9_ms", 99.9)]:
        expected = np.percentile(latencies_us, percentile, method="inverted_cdf") / 1e3
        assert summary[key] == pytest.approx(expected, rel=2e-3)
    assert summary["max_ms"] == pytest.approx(latencies_us.max() / 1e3, rel=2e-3)
    assert summary["qps"] == 500.0


def test_the_summary_counts_wrong_answers_and_confesses_a_closed_loop_and_a_busy_generator():
    measured = Measurement(
        errors=Counter({"status 503": 2, "wrong transaction id": 1}),
        requests=10,
        seconds=2.0,
        generator_cpu_seconds=1.9,
    )
    summary = describe_load(measured)
    assert summary["errors"] == 3
    assert summary["errors_by_kind"] == {"status 503": 2, "wrong transaction id": 1}
    assert summary["generator_was_busy"]
    assert "coordinated omission" in summary["caveat"]
    json.dumps(summary, allow_nan=False)


def test_the_picture_is_svg_that_is_the_same_for_the_same_numbers(tmp_path):
    histogram = HdrHistogram(1, MAX_LATENCY_US, 3)
    histogram.record_value(1000)
    for name in ("a.svg", "b.svg"):
        plot_latency(tmp_path / name, histogram)
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert "99.9" in (tmp_path / "a.svg").read_text()
