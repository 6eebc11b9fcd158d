"""Our scorer behind FastAPI and uvicorn: the framework most would reach for first.

Run as ``uvicorn serving.peer_fastapi:create_app --factory``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serving.fraud_messages import Prediction, Transaction
from serving.peer_scorer import PeerScorer, open_peer_scorer
from serving.peer_settings import read_peer_config


def create_app() -> FastAPI:
    """Make the application; store and model are opened when it starts."""
    opened: list[PeerScorer] = []

    @asynccontextmanager
    async def keep_open(_: FastAPI) -> AsyncIterator[None]:
        opened.append(open_peer_scorer(read_peer_config()))
        yield
        await opened[0].close()

    app = FastAPI(lifespan=keep_open)

    @app.post("/score")
    async def score(transaction: Transaction) -> Prediction:
        (answer,) = await opened[0].scorer.submit((transaction,))
        return Prediction(
            transaction_id=answer.transaction_id,
            score=answer.score,
            decision=answer.decision,
            model_version=answer.model_version,
            reasons=None,
            degraded_reason=answer.degraded_reason,
        )

    return app
