"""A scorer whose store and model are simple enough to know every answer beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from features.feast_layout import encode_value
from features.fraud_selection import FeatureSet
from features.fraud_state import CUSTOMER_EVENT, pack
from features.row_requests import RowRequests
from features.row_states import RowStates
from features.shared_summaries import SharedSummaries
from features.windows import SECOND
from serving.decisions import NO_EXPLORATION, Exploration
from serving.lane_metrics import LaneMetrics
from serving.online_store import StoreAnswer
from serving.prediction_log import ScoredBatch
from serving.score_messages import Transaction
from serving.scorer import Scorer
from training.calibration import IDENTITY
from training.encoding import Encoding
from training.operating_point import Thresholds

NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)
FEATURES = FeatureSet(
    names=("amount_log", "customer_tx_count_1h", "V1", "card_type"),
    categorical=("card_type",),
    dropped={},
)
ENCODING = Encoding(FEATURES.names, {"card_type": ("credit", "debit")})


@dataclass
class FakeArtefact:
    """Scores a transaction with the number of its customer's last transactions, over ten."""

    offset: float = 0.0
    request_model: object | None = "there is one"
    rule: Any = None
    error: Exception | None = None
    spec: Any = field(
        default_factory=lambda: SimpleNamespace(
            kind="fake",
            encoding=ENCODING,
            calibration=IDENTITY,
            thresholds=Thresholds(0.0, 0.0, min_review_amount=3.0),
        )
    )

    def predict_matrix(self, matrix: np.ndarray) -> np.ndarray:
        if self.error is not None:
            raise self.error
        return np.clip(np.nan_to_num(matrix[:, 1]) / 10 + self.offset, 0.0, 1.0)

    def decide(self, scores: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        return np.where(scores * amounts > 50, "decline", "approve")

    def predict_request(self, matrix: np.ndarray) -> np.ndarray:
        return np.full(len(matrix), 0.25)

    def decide_request(self, scores: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.full(len(scores), "review")

    def explain_matrix(self, matrix: np.ndarray, *, top: int) -> list[list[tuple[str, float]]]:
        return [[("customer_tx_count_1h", float(row[1]))][:top] for row in matrix]


@dataclass
class FakeStore:
    """Knows how often each customer paid in the hour before; can be away, out of date or slow.

    Attributes:
        counts: By customer.
        age: Of its states in seconds; ``None`` while it is away and nothing is known.
        may_go: Answers wait for it.
        asked: The customers of each batch.
    """

    counts: dict[str, int]
    age: float | None = 0.0
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_go.set()

    async def read(self, requests: RowRequests) -> StoreAnswer:
        self.asked.append(list(requests.customers))
        await asyncio.sleep(0)  # as any store takes a turn of the loop
        await self.may_go.wait()
        num = len(requests.customers)
        located = SharedSummaries().locate([None] * num, [None] * num)
        states = [
            b"" if self.age is None else encode_value(make_state(self.counts.get(customer, 0)))
            for customer in requests.customers
        ]
        return StoreAnswer(RowStates(states, [b""] * num, located), [self.age] * num)


def make_state(num_events: int) -> bytes:
    """Make the state of a customer who paid so often in the seconds before ``NOW``."""
    events = np.zeros(num_events, CUSTOMER_EVENT)
    start = int(NOW.timestamp()) * SECOND
    events["event_time"] = start - SECOND * np.arange(num_events, 0, -1)
    return pack(events)


def make_transactions(*customers: str) -> list[Transaction]:
    return [
        Transaction(
            transaction_id=f"t{number}",
            event_time=NOW,
            customer_id=customer,
            amount=100.0,
            card_type="credit",
            extra={"V1": 0.25},
        )
        for number, customer in enumerate(customers)
    ]


def make_scorer(
    store: FakeStore,
    records: list[ScoredBatch] | None = None,
    *,
    max_waiting_rows: int = 10_000,
    open_device: Any = None,
    exploration: Exploration = NO_EXPLORATION,
) -> Scorer:
    return Scorer(
        store=store,  # type: ignore[arg-type]
        feature_set=FEATURES,
        record=[].append if records is None else records.append,
        metrics=LaneMetrics(registry=CollectorRegistry()),
        max_waiting_rows=max_waiting_rows,
        open_device=open_device,
        exploration=exploration,
    )


async def start_requests(scorer: Scorer, sizes: Sequence[int]) -> list[asyncio.Future[Any]]:
    """Submit requests of so many rows, all of ann's, and let the loop begin on them."""
    futures = [scorer.submit(make_transactions(*["ann"] * size)) for size in sizes]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return futures
