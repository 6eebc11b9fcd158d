"""Skew, planted where it happens in practice: the parity check sees and names each kind.

Each plant changes what is published, asked, read or answered, and nothing in the check itself.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from configs.schema import load_fraud_config
from features.fraud_history import to_microseconds
from features.fraud_stream import connect_stream
from features.fraud_windows import Grouped
from features.publish import publish_labels
from features.store import read_online_features
from features.store_build import build_feature_store
from features.stream_archive import Archive
from features.windows import find_bounds
from monitoring.parity_causes import Known
from monitoring.parity_verdict import judge_parity
from tests.parity.conftest import make_world

HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def history():
    """3,000 transactions over 30 days; the last is an hour, a day and a week after others."""
    transactions, labels = make_world(num_transactions=3000, num_days=30, seed=4)
    last = transactions.iloc[[-1]]
    edges = [
        last.assign(transaction_id=f"edge-{hours}", event_time=last["event_time"] - hours * HOUR)
        for hours in (7 * 24, 24, 1, 0)
    ]
    edges = pd.concat(edges).assign(customer_id="c-edge", merchant_id="m-edge", ip="ip-edge")
    rows = pd.concat([transactions, edges], ignore_index=True)
    return rows.sort_values("event_time", kind="stable", ignore_index=True), labels


@pytest.fixture(scope="module")
def built(history, tmp_path_factory):
    """A feature store of that history, its online half as of the beginning."""
    runs = tmp_path_factory.mktemp("runs")
    return runs, build_feature_store(runs, *history, as_of=history[0]["event_time"].iloc[0])


@pytest.fixture
def serve(history, built, tmp_path):
    """Stream the history, serve its last day, and hold what was served against history."""
    transactions, labels = history
    end = transactions["event_time"].iloc[-1]

    def unchanged(value):
        return value

    def run(
        *,
        publish=unchanged,
        ask=unchanged,
        answer=unchanged,
        label=unchanged,
        read=read_online_features,
    ):
        stream = connect_stream(tmp_path, built[1], load_fraud_config().stream)
        stream = replace(stream, archive=Archive(lambda: tmp_path / "archive"))
        stream.states.clear()
        stream.states.mark_whole()
        stream.publish(publish(transactions))
        stream.make_processor().run(until_empty=True)
        told = label(labels)
        publish_labels(stream.states, transactions, told[told["label_time"] < end])
        rows = transactions[transactions["event_time"] > end - 24 * HOUR]
        asked = ask(rows.reset_index(drop=True))
        served = read(built[1], asked)
        predictions = asked[["transaction_id", "event_time", "amount"]].assign(
            prediction_time=end, degraded_reason=None
        )
        known = Known(transactions, to_microseconds(transactions["event_time"]), labels)
        return judge_parity(
            predictions,
            answer(served[list(built[1].features.computed)]),
            known,
            max_lag_seconds=60.0,
        )

    return run


def assert_caught(verdict, *, named, innocent):
    """The features that must differ do, for no legitimate reason; those untouched do not."""
    skewed = set(verdict.unexplained["feature"])
    assert set(named) <= skewed
    assert not set(innocent) & skewed
    assert verdict.unexplained_share > 0


def test_without_skew_there_is_no_alarm(serve):
    verdict = serve()
    assert verdict.rows > 50
    assert verdict.unknown == []
    assert verdict.mismatches.empty
    assert verdict.unexplained_share == 0


def test_a_unit_cents_on_the_stream_is_caught(serve):
    verdict = serve(publish=lambda rows: rows.assign(amount=rows["amount"] * 100))
    assert_caught(
        verdict,
        named=["customer_amount_mean_7d", "customer_amount_max_30d", "merchant_amount_mean_30d"],
        innocent=["customer_tx_count_7d", "amount_log", "amount", "hour_sin"],
    )


def test_a_unit_cents_in_the_request_is_caught(serve):
    verdict = serve(ask=lambda rows: rows.assign(amount=rows["amount"] * 100))
    assert_caught(
        verdict,
        named=["amount", "amount_log", "customer_amount_zscore_7d", "amount_to_merchant_mean"],
        innocent=["customer_amount_mean_7d", "merchant_amount_mean_30d"],
    )


def test_a_time_zone_on_the_stream_is_caught(serve):
    verdict = serve(publish=lambda rows: rows.assign(event_time=rows["event_time"] - HOUR))
    assert_caught(
        verdict,
        named=["customer_seconds_since_previous", "customer_tx_count_1h"],
        innocent=["hour_sin", "amount_log", "event_time"],
    )


def test_a_time_zone_in_the_request_is_caught(serve):
    verdict = serve(ask=lambda rows: rows.assign(event_time=rows["event_time"] - 2 * HOUR))
    assert_caught(
        verdict,
        named=["event_time", "hour_sin", "hour_cos", "customer_seconds_since_previous"],
        innocent=["amount_log", "amount"],
    )


def planted_bounds(*, later, shorter):
    """Window bounds of a careless twin: asked ``later``, and with windows that much ``shorter``."""

    def find(groups, length):
        return find_bounds(
            groups.event_times,
            groups.event_starts,
            groups.query_times + later,
            groups.query_starts,
            length=length + later - shorter,
        )

    return find


def read_with(monkeypatch, bounds):
    """Plant window bounds into the serving side alone; the check's own replay stays as it is."""

    def read(store, transactions):
        with monkeypatch.context() as planted:
            planted.setattr(Grouped, "find_bounds", bounds)
            return read_online_features(store, transactions)

    return read


def test_a_window_edge_off_by_one_is_caught(serve, monkeypatch):
    read = read_with(monkeypatch, planted_bounds(later=0, shorter=1))
    assert_caught(
        serve(read=read),
        named=["customer_tx_count_1h", "customer_tx_count_24h", "customer_tx_count_7d"],
        innocent=["amount_log", "customer_amount_max_30d", "customer_amount_mean_30d"],
    )


def test_the_current_event_included_is_caught(serve, monkeypatch):
    read = read_with(monkeypatch, planted_bounds(later=1, shorter=0))
    assert_caught(
        serve(read=read),
        named=["customer_tx_count_1h", "customer_amount_mean_7d", "merchant_amount_mean_30d"],
        innocent=["amount_log", "is_night"],
    )


def test_a_stale_value_is_caught_and_not_taken_for_lag(serve, history):
    stopped = history[0]["event_time"].iloc[-1] - 20 * HOUR
    verdict = serve(publish=lambda rows: rows[rows["event_time"] < stopped])
    assert_caught(
        verdict,
        named=["customer_tx_count_24h", "customer_seconds_since_previous"],
        innocent=["amount_log", "merchant_fraud_rate"],
    )


def test_the_wrong_entity_is_caught(serve):
    def swap(rows):
        swapped = rows.rename(columns={"customer_id": "merchant_id", "merchant_id": "customer_id"})
        return swapped.assign(customer_id=swapped["customer_id"].fillna("nobody"))

    assert_caught(
        serve(ask=swap),
        named=["customer_tx_count_7d", "merchant_amount_mean_30d", "merchant_fraud_rate"],
        innocent=["amount_log", "merchant_category_risk"],
    )


def test_nulls_filled_with_0_are_caught(serve):
    verdict = serve(answer=lambda features: features.fillna(0.0))
    filled = verdict.unexplained
    assert_caught(
        verdict,
        named=["merchant_amount_mean_30d", "ip_unique_customers_24h", "is_known_device"],
        innocent=["customer_tx_count_1h", "amount_log"],
    )
    assert filled["replayed"].isna().all()
    assert (filled["served"] == 0).all()


def test_amounts_in_float32_are_caught(serve):
    verdict = serve(
        publish=lambda rows: rows.assign(amount=rows["amount"].astype(np.float32).astype(float))
    )
    assert_caught(
        verdict,
        named=["customer_amount_mean_7d", "customer_amount_mean_30d", "merchant_amount_mean_30d"],
        innocent=["customer_tx_count_7d", "amount"],
    )
    sizes = verdict.features.set_index("feature")["max_relative_difference"]
    assert 1e-9 < sizes["customer_amount_mean_30d"] < 1e-6


def test_features_in_float32_are_caught(serve):
    verdict = serve(answer=lambda features: features.astype(np.float32).astype(np.float64))
    assert_caught(
        verdict, named=["amount_log", "hour_sin"], innocent=["customer_tx_count_7d", "amount"]
    )


def test_events_counted_twice_under_other_names_are_caught(serve):
    def retell(rows):
        return pd.concat([rows, rows.assign(transaction_id=rows["transaction_id"] + "-retry")])

    assert_caught(
        serve(publish=retell),
        named=["customer_tx_count_7d", "customer_tx_count_24h"],
        innocent=["amount_log", "customer_amount_max_30d", "customer_seconds_since_previous"],
    )


def test_labels_before_they_matured_are_caught(serve, history):
    happened = history[0].set_index("transaction_id")["event_time"]

    def leak(labels):
        return labels.assign(label_time=labels["transaction_id"].map(happened))

    assert_caught(
        serve(label=leak),
        named=["merchant_fraud_rate", "merchant_category_risk"],
        innocent=["amount_log", "customer_tx_count_7d"],
    )
