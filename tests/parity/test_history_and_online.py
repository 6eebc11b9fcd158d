"""What is trained on equals what is served: history, the online store and an oracle agree."""

import numpy as np
import pandas as pd

from configs.schema import load_fraud_config
from features.fraud_replay import recompute_features
from features.fraud_state import SLACK
from features.fraud_stream import connect_stream
from features.publish import publish_labels
from features.store import read_online_features, read_training_features
from features.store_build import build_feature_store

TOLERANCE = 1e-9


def assert_same_features(left, right):
    for name in left.columns:
        if pd.api.types.is_float_dtype(left[name]):
            np.testing.assert_allclose(
                left[name], right[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
        else:
            assert left[name].tolist() == right[name].tolist(), name


def latest(transactions):
    end = transactions["event_time"].iloc[-1]
    recent = transactions["event_time"] > end - pd.Timedelta(microseconds=SLACK)
    return transactions[recent].reset_index(drop=True)


def test_history_and_online_agree_on_the_same_requests(world, store):
    requests = latest(world[0])
    assert len(requests) > 20
    assert_same_features(
        read_training_features(store, requests), read_online_features(store, requests)
    )


def test_a_request_alone_gets_what_it_gets_in_a_batch(world, store):
    requests = latest(world[0]).head(5)
    together = read_online_features(store, requests)
    alone = [read_online_features(store, requests.iloc[[row]]) for row in range(len(requests))]
    assert_same_features(together, pd.concat(alone, ignore_index=True))


def test_history_equals_features_recomputed_from_what_was_known(world, store):
    transactions, labels = world
    sample = transactions.sample(60, random_state=0)
    recomputed = recompute_features(transactions, labels, sample)
    history = read_training_features(store, sample)
    assert_same_features(recomputed, history[list(recomputed.columns)])


def test_rows_come_back_in_the_order_asked(world, store):
    shuffled = world[0].sample(200, random_state=3)
    history = read_training_features(store, shuffled)
    assert history["transaction_id"].tolist() == shuffled["transaction_id"].tolist()


def test_later_transactions_and_labels_change_no_feature(world, tmp_path):
    transactions, labels = world
    cut = transactions["event_time"].iloc[2000]
    early = transactions[transactions["event_time"] < cut]
    known = labels[labels["label_time"] < cut]
    truncated = build_feature_store(tmp_path, early, known, as_of=cut)
    from_truncated = read_training_features(truncated, early)
    # The whole world's store is rebuilt elsewhere, so that both are read the same way.
    whole = build_feature_store(tmp_path / "whole", transactions, labels, as_of=cut)
    assert_same_features(from_truncated, read_training_features(whole, early))


def test_publishing_in_slices_gives_the_state_that_materialising_gives(world, tmp_path):
    transactions, labels = world
    half_way = transactions["event_time"].iloc[2500]
    store = build_feature_store(tmp_path, transactions, labels, as_of=half_way)
    rest = transactions[transactions["event_time"] >= transactions["event_time"].iloc[2500]]
    stream = connect_stream(tmp_path, store, load_fraud_config().stream)
    processor = stream.make_processor()
    for start in range(0, len(rest), 100):
        stream.publish(rest.iloc[start : start + 100].sample(frac=1, random_state=0))
        stream.publish(rest.iloc[start : start + 30])
        processor.run(until_empty=True)
    end = transactions["event_time"].iloc[-1]
    publish_labels(stream.states, transactions, labels[labels["label_time"] < end])
    requests = latest(transactions)
    assert_same_features(
        read_training_features(store, requests), read_online_features(store, requests)
    )


def test_reading_does_not_modify_the_transactions(world, store):
    requests = latest(world[0])
    before = requests.copy()
    read_online_features(store, requests)
    read_training_features(store, requests)
    pd.testing.assert_frame_equal(requests, before)


def test_features_whose_columns_are_missing_are_left_out_of_both(world, tmp_path):
    transactions, labels = world
    bare = transactions[["transaction_id", "event_time", "customer_id", "amount"]].assign(
        own_score=1.5, browser="x"
    )
    end = bare["event_time"].iloc[-1] + pd.Timedelta(microseconds=1)
    store = build_feature_store(tmp_path, bare, labels, as_of=end)
    requests = latest(bare)
    stream = connect_stream(tmp_path, store, load_fraud_config().stream)
    stream.publish(bare.tail(3))
    stream.publish(transactions.tail(3))  # with the columns that the history lacks
    stream.make_processor().run(until_empty=True)
    history, online = read_training_features(store, requests), read_online_features(store, requests)
    assert_same_features(history, online)
    assert "is_known_device" not in history
    assert history["own_score"].eq(1.5).all()
    assert history["browser"].eq("x").all()


def test_a_customer_silent_for_weeks_is_remembered_as_history_remembers_them(world, tmp_path):
    transactions, labels = world
    start = transactions["event_time"].iloc[0].normalize()
    rows = transactions.iloc[[0, 1, 2]].assign(
        customer_id=["quiet", "quiet", "busy"],
        amount=[10.0, 30.0, 5.0],
        event_time=[start + pd.Timedelta(days=days) for days in (0, 20, 45)],
    )
    asked = rows.tail(1).assign(
        transaction_id="t_new", customer_id="quiet", event_time=start + pd.Timedelta(days=25)
    )
    history = pd.concat([rows, asked]).sort_values("event_time", ignore_index=True)
    end = start + pd.Timedelta(days=46)
    store = build_feature_store(tmp_path, history, labels.head(0), as_of=end)
    in_history, online = read_training_features(store, asked), read_online_features(store, asked)
    assert in_history["customer_amount_mean_30d"].tolist() == [20.0]
    assert online["customer_amount_mean_30d"].tolist() == [20.0]
