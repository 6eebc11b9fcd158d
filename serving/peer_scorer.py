"""Our scorer for services that are not ours: the same store, model and log behind other servers."""

from __future__ import annotations

import os
from dataclasses import dataclass

from configs.schema import FraudConfig
from serving import scorer as scoring
from serving.lane_metrics import LaneMetrics
from serving.online_store import OnlineStore
from serving.peer_settings import BATCH_VARIABLE
from serving.prediction_log import PredictionLog, get_prediction_folder
from serving.scorer import Scorer
from serving.store_opening import open_fraud_store
from training.artefact import load_artefact
from training.registry import get_champion


@dataclass(frozen=True)
class PeerScorer:
    """A scorer with its champion loaded, and what must be closed after it."""

    scorer: Scorer
    _store: OnlineStore
    _log: PredictionLog

    async def close(self) -> None:
        """Answer what was accepted, write the last records, let go of the store."""
        await self.scorer.drain()
        self._log.close()
        self._store.close()


def open_peer_scorer(config: FraudConfig) -> PeerScorer:
    """Open the store and load the champion of ``runs``; used in one event loop.

    Raises:
        FileNotFoundError: If there is no champion or no feature store.
    """
    batch_rows = os.environ.get(BATCH_VARIABLE)
    if batch_rows is not None:  # an ablation's process: what does coalescing gain?
        scoring.BATCH_ROWS = int(batch_rows)
    store = open_fraud_store(config)
    log = PredictionLog(
        get_prediction_folder(config.runs),
        feature_set=store.feature_set,
        flush_seconds=config.serving.log_flush_seconds,
        max_pending=config.serving.log_queue_rows,
    )
    scorer = Scorer(
        store=store,
        feature_set=store.feature_set,
        record=log.append,
        metrics=LaneMetrics(),
        max_waiting_rows=config.serving.max_waiting_rows,
    )
    version, folder = get_champion(config.runs)
    scorer.lineup.replace_champion(version, load_artefact(folder, version=version))
    return PeerScorer(scorer, store, log)
