"""The textbook service: BentoML, Feast's SDK, a data frame, ``Booster.predict``, a threshold.

As tutorials put these libraries together, and as this project served at first. It is what the fast
lane is measured against; the same champion, the same store, the same decisions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import bentoml
import pandas as pd

from serving.fraud_messages import Prediction, Transaction
from serving.peer_settings import FAST_READER_VARIABLE, read_peer_config
from serving.prediction_log import Decision

if TYPE_CHECKING:
    from features.state_store import StateStore


@bentoml.service
class TextbookService:
    """Score one transaction a call."""

    def __init__(self) -> None:
        # Imported here because BentoML's supervising process imports this module too.
        import lightgbm

        from features.store import open_feature_store, read_online_features
        from training.artefact import load_artefact
        from training.registry import get_champion

        config = read_peer_config()
        store = open_feature_store(config.runs)
        self.version, folder = get_champion(config.runs)
        self.artefact = load_artefact(folder, version=self.version)
        self.booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
        self.columns = store.features.names

        def read_fast(transactions: pd.DataFrame) -> pd.DataFrame:
            found = _read_columns(store.states, transactions)
            passed = transactions[[name for name in self.columns if name not in found]]
            return pd.concat([passed, found], axis=1)

        def read_with_sdk(transactions: pd.DataFrame) -> pd.DataFrame:
            return read_online_features(store, transactions)

        self.read = read_fast if os.environ.get(FAST_READER_VARIABLE) else read_with_sdk

    @bentoml.api(route="/score")
    def score(self, transaction: Transaction, /) -> Prediction:
        """Score one transaction."""
        from training.encoding import encode_features

        row = pd.DataFrame([transaction.model_dump(exclude={"extra"}) | transaction.extra])
        row["event_time"] = row["event_time"].astype("datetime64[us, UTC]")
        features = self.read(row)
        matrix = encode_features(features, encoding=self.artefact.spec.encoding)
        margins = self.booster.predict(matrix, raw_score=True)
        scores = self.artefact.spec.calibration.apply(margins)
        (decision,) = self.artefact.decide(scores, row["amount"].to_numpy())
        return Prediction(
            transaction_id=transaction.transaction_id,
            score=float(scores[0]),
            decision=cast("Decision", str(decision)),
            model_version=self.version,
            reasons=None,
            degraded_reason=None,
        )


def _read_columns(states: StateStore, transactions: pd.DataFrame) -> pd.DataFrame:
    """Read all states in one round trip, and compute features column by column."""
    from features.fraud_online import compute_online, make_requests
    from features.fraud_state import STATE_KEYS

    wanted = [state for state, key in STATE_KEYS.items() if key in transactions]
    rows, entities = {}, {}
    for key in dict.fromkeys(STATE_KEYS[state] for state in wanted):
        rows[key], unique = pd.factorize(transactions[key].fillna(""))
        entities[key] = [str(entity) for entity in unique]
    found = states.read(entities, wanted)
    by_row = {state: [found[state][row] for row in rows[STATE_KEYS[state]]] for state in wanted}
    return pd.DataFrame(compute_online(by_row, make_requests(transactions)))
