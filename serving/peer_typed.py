"""Our scorer behind BentoML's own typed, asynchronous API: what is left when the lane is not there.

``BENTOML_CONFIG_OPTIONS`` says whether its access log, metrics and tracing are on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import bentoml

from serving.fraud_messages import Prediction, Transaction
from serving.peer_settings import read_peer_config

if TYPE_CHECKING:
    from serving.peer_scorer import PeerScorer


@bentoml.service
class TypedService:
    """Score one transaction a call, all calls of one turn of the event loop together."""

    opened: PeerScorer

    @bentoml.on_startup
    async def start(self) -> None:
        """Open the scorer inside the event loop that will serve."""
        # Imported here because BentoML's supervising process imports this module too.
        from serving.peer_scorer import open_peer_scorer

        self.opened = open_peer_scorer(read_peer_config())

    @bentoml.api(route="/score")
    async def score(self, transaction: Transaction, /) -> Prediction:
        """Score one transaction."""
        (answer,) = await self.opened.scorer.submit((transaction,))
        return Prediction(
            transaction_id=answer.transaction_id,
            score=answer.score,
            decision=answer.decision,
            model_version=answer.model_version,
            reasons=None,
            degraded_reason=answer.degraded_reason,
        )

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Write the last records."""
        await self.opened.close()
