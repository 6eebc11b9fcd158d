"""The textbook service: BentoML, Feast's SDK, a data frame, ``Booster.predict``, a threshold.

As tutorials put these libraries together, and as this project served at first. It is what the fast
lane is measured against; the same champion, the same store, the same decisions.
"""

from __future__ import annotations

import os
from typing import cast

import bentoml
import pandas as pd

from serving.fraud_messages import Prediction, Transaction
from serving.peer_settings import FAST_READER_VARIABLE, read_peer_config
from serving.prediction_log import Decision


@bentoml.service
class TextbookService:
    """Score one transaction a call."""

    def __init__(self) -> None:
        # Imported here because BentoML's supervising process imports this module too.
        import lightgbm

        from features.fast_reader import FastReader
        from features.store import open_feature_store, read_online_features
        from training.artefact import load_artefact
        from training.registry import get_champion

        config = read_peer_config()
        store = open_feature_store(config.runs)
        self.version, folder = get_champion(config.runs)
        self.artefact = load_artefact(folder, version=self.version)
        self.booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
        self.columns = store.features.names
        reader = FastReader(store.states)

        def read_fast(transactions: pd.DataFrame) -> pd.DataFrame:
            found = pd.DataFrame(reader.read(transactions))
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
