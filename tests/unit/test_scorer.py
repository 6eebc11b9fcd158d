from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from features.fraud_selection import FeatureSet
from serving.prediction_log import ScoredBatch
from serving.scorer import (
    STORE_UNAVAILABLE,
    Champion,
    NoModelError,
    Scorer,
    build_request_features,
    list_extra_columns,
)

FEATURES = FeatureSet(
    names=("amount_log", "customer_tx_count_1h", "V1", "card_type"),
    categorical=("card_type",),
    dropped={},
)


@dataclass
class FakeArtefact:
    """Scores a transaction with the number of its customer's transactions, over ten."""

    features: tuple[str, ...] = FEATURES.names
    offset: float = 0.0
    before_predict: threading.Event | None = None

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        counts = features["customer_tx_count_1h"].fillna(0.0).to_numpy()
        return np.clip(counts / 10 + self.offset, 0.0, 1.0)

    def decide(self, scores: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        return np.where(scores * amounts > 50, "decline", "approve")

    def explain(self, features: pd.DataFrame, *, top: int) -> list[list[tuple[str, float]]]:
        return [[("customer_tx_count_1h", 0.5)][:top] for _ in range(len(features))]


@dataclass
class FakeStore:
    """Knows how often each customer paid in the hour before; can be taken away."""

    counts: dict[str, float]
    is_broken: bool = False
    asked: list[pd.DataFrame] = field(default_factory=list)

    def read(self, transactions: pd.DataFrame) -> pd.DataFrame:
        self.asked.append(transactions)
        if self.is_broken:
            raise ConnectionError("gone")
        features = build_request_features(transactions, feature_set=FEATURES)
        return features.assign(
            customer_tx_count_1h=transactions["customer_id"].map(self.counts).astype(float)
        )


def make_transactions(*customers: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": [f"t{number}" for number in range(len(customers))],
            "event_time": pd.to_datetime(["2026-03-01T06:00:00Z"] * len(customers)).astype(
                "datetime64[us, UTC]"
            ),
            "customer_id": list(customers),
            "amount": [100.0] * len(customers),
            "card_type": ["credit"] * len(customers),
            "V1": [0.25] * len(customers),
        }
    )


def make_scorer(store: FakeStore, records: list[ScoredBatch]) -> Scorer:
    return Scorer(
        read_features=store.read,
        feature_set=FEATURES,
        record=records.append,
        probe=make_transactions("nobody"),
    )


def test_answers_come_in_the_order_of_the_transactions_with_score_decision_and_version():
    scorer = make_scorer(FakeStore({"ann": 2.0, "bob": 8.0}), [])
    scorer.replace_champion(Champion("7", FakeArtefact()))
    answers = scorer.score(make_transactions("bob", "ann"))
    assert [answer.transaction_id for answer in answers] == ["t0", "t1"]
    assert [answer.score for answer in answers] == [0.8, 0.2]
    assert [answer.decision for answer in answers] == ["decline", "approve"]
    assert {answer.model_version for answer in answers} == {"7"}
    assert {answer.degraded_reason for answer in answers} == {None}


def test_without_a_model_nothing_is_answered_or_recorded():
    records: list[ScoredBatch] = []
    scorer = make_scorer(FakeStore({}), records)
    with pytest.raises(NoModelError):
        scorer.score(make_transactions("ann"))
    assert records == []


def test_a_store_that_fails_costs_the_history_and_the_answer_says_so():
    records: list[ScoredBatch] = []
    store = FakeStore({"ann": 8.0}, is_broken=True)
    scorer = make_scorer(store, records)
    scorer.replace_champion(Champion("7", FakeArtefact()))
    (answer,) = scorer.score(make_transactions("ann"))
    assert answer.degraded_reason == STORE_UNAVAILABLE
    assert answer.score == 0.0
    (logged,) = records[0].features.tolist()
    assert logged == pytest.approx([np.log(101.0), np.nan, 0.25], nan_ok=True)
    assert records[0].categories == [["credit"]]
    assert records[0].degraded_reasons == [STORE_UNAVAILABLE]
    assert scorer.counts == (1, 1)
    assert "gone" in str(scorer.store_error)


def test_a_store_that_comes_back_ends_the_degradation():
    store = FakeStore({"ann": 8.0}, is_broken=True)
    scorer = make_scorer(store, [])
    scorer.replace_champion(Champion("7", FakeArtefact()))
    scorer.score(make_transactions("ann"))
    store.is_broken = False
    (answer,) = scorer.score(make_transactions("ann"))
    assert (answer.score, answer.degraded_reason, scorer.store_error) == (0.8, None, None)


def test_a_promotion_in_the_middle_of_a_batch_changes_no_answer_of_it():
    store = FakeStore({"ann": 1.0})
    scorer = make_scorer(store, [])

    def read_and_promote(transactions: pd.DataFrame) -> pd.DataFrame:
        scorer.replace_champion(Champion("8", FakeArtefact(offset=0.5)))
        return store.read(transactions)

    scorer.read_features = read_and_promote
    scorer.replace_champion(Champion("7", FakeArtefact()))
    answers = scorer.score(make_transactions("ann", "ann"))
    assert {(answer.model_version, answer.score) for answer in answers} == {("7", 0.1)}
    assert scorer.score(make_transactions("ann"))[0].model_version == "8"
    assert scorer.versions_served == ["7", "8", "8"]


def test_reasons_are_given_only_when_asked_for():
    scorer = make_scorer(FakeStore({"ann": 1.0}), [])
    scorer.replace_champion(Champion("7", FakeArtefact()))
    assert scorer.score(make_transactions("ann"))[0].reasons is None
    explained = scorer.score(make_transactions("ann"), explain=True)[0]
    assert explained.reasons == [("customer_tx_count_1h", 0.5)]


def test_each_batch_is_recorded_once_with_what_was_answered():
    records: list[ScoredBatch] = []
    scorer = make_scorer(FakeStore({"ann": 2.0, "bob": 8.0}), records)
    scorer.replace_champion(Champion("7", FakeArtefact()))
    answers = scorer.score(make_transactions("ann", "bob"))
    (batch,) = records
    assert batch.transaction_ids == [answer.transaction_id for answer in answers]
    assert batch.scores.tolist() == [answer.score for answer in answers]
    assert batch.decisions == [answer.decision for answer in answers]
    assert batch.features[:, FEATURES.numeric.index("customer_tx_count_1h")].tolist() == [2.0, 8.0]
    assert batch.categories == [["credit", "credit"]]
    assert (batch.model_version, batch.arm) == ("7", "champion")
    assert (batch.latency_ms > 0).all()


def test_scoring_leaves_the_transactions_as_they_were():
    scorer = make_scorer(FakeStore({}, is_broken=True), [])
    scorer.replace_champion(Champion("7", FakeArtefact()))
    transactions = make_transactions("ann")
    before = transactions.copy(deep=True)
    scorer.score(transactions)
    pd.testing.assert_frame_equal(transactions, before)


def test_a_scorer_is_ready_once_a_model_is_loaded_and_the_store_has_answered():
    store = FakeStore({}, is_broken=True)
    scorer = make_scorer(store, [])
    assert not scorer.is_ready()
    scorer.replace_champion(Champion("7", FakeArtefact()))
    assert not scorer.is_ready()
    store.is_broken = False
    assert scorer.is_ready()
    store.is_broken = True
    assert scorer.is_ready()


def test_readiness_stops_asking_the_store_once_it_has_answered():
    store = FakeStore({})
    scorer = make_scorer(store, [])
    scorer.replace_champion(Champion("7", FakeArtefact()))
    for _ in range(3):
        scorer.is_ready()
    assert len(store.asked) == 1


def test_request_features_know_the_clock_but_no_history():
    rows = build_request_features(make_transactions("ann"), feature_set=FEATURES)
    assert rows.columns.tolist() == ["transaction_id", "event_time", *FEATURES.names]
    clock = FeatureSet(names=("hour_sin", "hour_cos", "is_night"), categorical=(), dropped={})
    hours = build_request_features(make_transactions("ann"), feature_set=clock).iloc[0]
    assert hours["hour_sin"] == pytest.approx(1.0)  # six in the morning is a quarter of the day
    assert hours["hour_cos"] == pytest.approx(0.0, abs=1e-12)
    assert hours["is_night"] == 0.0


def test_extra_columns_are_the_features_that_are_neither_computed_nor_in_the_contract():
    features = FeatureSet(
        names=("amount_log", "V1", "card_type", "bank"),
        categorical=("card_type", "bank"),
        dropped={},
    )
    extra = list_extra_columns(features, contract=("amount", "card_type"))
    assert extra == {"V1": False, "bank": True}
