"""Transactions become scores, decisions and prediction records: online features, then the model.

Invariants: every row of one call is answered by one model, whatever is promoted meanwhile; a
store that fails costs the history, never the answer, and the answer says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pandas as pd

from features.fraud import derive
from features.fraud_history import to_microseconds
from features.fraud_selection import FeatureSet
from serving.prediction_log import Decision, ScoredBatch

if TYPE_CHECKING:
    from training.artefact import Artefact

logger = logging.getLogger("bentoml.throughline")

STORE_UNAVAILABLE = "online store unavailable"
NUM_REASONS = 5


class NoModelError(RuntimeError):
    """No champion has been loaded yet."""


@dataclass(frozen=True)
class Champion:
    """A loaded model and the registry's name for it."""

    version: str
    artefact: Artefact


class Answer(NamedTuple):
    """What one transaction is answered; ``reasons`` is None unless they were asked for."""

    transaction_id: str
    score: float
    decision: Decision
    model_version: str
    reasons: list[tuple[str, float]] | None
    degraded_reason: str | None


class ScoreCounts(NamedTuple):
    """Transactions answered since the process started, and how many of them without history."""

    scored: int
    degraded: int


class Scorer:
    """Score transactions with the current champion.

    One thread scores at a time (the caller's promise); ``champion`` may be replaced by another.

    Args:
        read_features: Transactions -> their online features, same order (``features.store``).
        feature_set: The features the store holds.
        record: Takes each scored batch for the prediction log; must not block.
        probe: A made-up transaction, to ask the store and the model whether they answer.
    """

    def __init__(
        self,
        *,
        read_features: Callable[[pd.DataFrame], pd.DataFrame],
        feature_set: FeatureSet,
        record: Callable[[ScoredBatch], None],
        probe: pd.DataFrame,
    ) -> None:
        self.read_features = read_features
        self.feature_set = feature_set
        self.record = record
        self.probe = probe
        self.champion: Champion | None = None
        self.versions_served: list[str] = []
        self.counts = ScoreCounts(0, 0)
        self.store_error: str | None = None
        self._has_answered = False

    def replace_champion(self, champion: Champion) -> None:
        """Let ``champion`` answer every call that starts from now on."""
        self.versions_served = [*self.versions_served, champion.version]
        self.champion = champion

    def is_ready(self) -> bool:
        """Tell whether a model is loaded and the store has answered, asking it until it has.

        A store that fails later does not make the scorer unready: it still answers, degraded.
        """
        champion = self.champion
        if champion is not None and not self._has_answered:
            features, degraded_reason = self._read_features(self.probe)
            champion.artefact.predict(features)
            self._has_answered = degraded_reason is None
        return champion is not None and self._has_answered

    def score(self, transactions: pd.DataFrame, *, explain: bool = False) -> list[Answer]:
        """Score transactions as of their own ``event_time`` and queue their records.

        Args:
            transactions: The columns of the contract and of the extra features, one row per
                transaction (see ``serving.fraud_messages.build_transactions``).
            explain: Whether to say which features moved each score most.

        Returns:
            One answer per row, in the same order, all from the same model.

        Raises:
            NoModelError: If there is no champion yet.
        """
        started = time.perf_counter()
        champion = self.champion
        if champion is None:
            raise NoModelError("no model has been loaded yet")
        features, degraded_reason = self._read_features(transactions)
        scores = champion.artefact.predict(features)
        assert np.all((scores >= 0) & (scores <= 1)), (
            "a model gave something that is no probability"
        )
        decisions = champion.artefact.decide(scores, transactions["amount"].to_numpy())
        latency_ms = (time.perf_counter() - started) * 1e3
        rows = len(transactions)
        batch = ScoredBatch(
            prediction_time_us=time.time_ns() // 1_000,
            model_version=champion.version,
            arm="champion",
            transaction_ids=transactions["transaction_id"].tolist(),
            event_times_us=to_microseconds(transactions["event_time"]),
            amounts=transactions["amount"].to_numpy(np.float64),
            features=features[list(self.feature_set.numeric)].to_numpy(np.float64),
            categories=[
                features[name].astype(object).where(features[name].notna(), None).tolist()
                for name in self.feature_set.categorical
            ],
            scores=scores,
            decisions=[cast("Decision", str(decision)) for decision in decisions],
            degraded_reasons=[degraded_reason] * rows,
            latency_ms=np.full(rows, latency_ms),
        )
        self.record(batch)
        self._count(rows, is_degraded=degraded_reason is not None)
        reasons = champion.artefact.explain(features, top=NUM_REASONS) if explain else None
        return _make_answers(batch, reasons)

    def _read_features(self, transactions: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
        """Read online features; without a store, make do with what the request itself says."""
        try:
            features = self.read_features(transactions)
        except Exception as error:  # noqa: BLE001 - a store fails in ways of its own; all cost history only
            if self.store_error is None:
                logger.warning("online store failed, answering without history: %r", error)
            self.store_error = repr(error)
            return build_request_features(transactions, feature_set=self.feature_set), (
                STORE_UNAVAILABLE
            )
        if self.store_error is not None:
            logger.warning("online store answers again")
        self.store_error = None
        return features, None

    def _count(self, rows: int, *, is_degraded: bool) -> None:
        scored, degraded = self.counts
        self.counts = ScoreCounts(scored + rows, degraded + rows * is_degraded)


def _make_answers(
    batch: ScoredBatch, reasons: list[list[tuple[str, float]]] | None
) -> list[Answer]:
    return [
        Answer(
            transaction_id=transaction_id,
            score=score,
            decision=batch.decisions[row],
            model_version=batch.model_version,
            reasons=None if reasons is None else reasons[row],
            degraded_reason=batch.degraded_reasons[row],
        )
        for row, (transaction_id, score) in enumerate(
            zip(batch.transaction_ids, batch.scores.tolist(), strict=True)
        )
    ]


def build_request_features(transactions: pd.DataFrame, *, feature_set: FeatureSet) -> pd.DataFrame:
    """Compute the features that need no history; all others are missing.

    Args:
        transactions: At least ``amount`` and ``event_time``; categorical and extra columns pass
            through where they are there.
        feature_set: Which features to give, in which order.

    Returns:
        ``transaction_id``, ``event_time`` and one column per feature: NaN (None for categorical
        ones) where only a store would know.
    """
    request = derive(
        {
            "amount": transactions["amount"].to_numpy(np.float64),
            "event_time_us": to_microseconds(transactions["event_time"]),
        }
    )
    columns: dict[str, object] = {
        name: transactions[name].array for name in ("transaction_id", "event_time")
    }
    missing = np.full(len(transactions), np.nan)
    for name in feature_set.names:
        if name in request:
            columns[name] = request[name]
        elif name in transactions.columns:
            columns[name] = transactions[name].array
        else:
            is_text = name in feature_set.categorical
            columns[name] = np.full(len(transactions), None) if is_text else missing
    return pd.DataFrame(columns)


def list_extra_columns(feature_set: FeatureSet, *, contract: tuple[str, ...]) -> dict[str, bool]:
    """Name the features that are columns of the user's own, and whether they hold strings."""
    return {
        name: name in feature_set.categorical
        for name in feature_set.names
        if name not in feature_set.computed and name not in contract
    }
