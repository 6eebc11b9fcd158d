"""How many requests a second plain uvicorn answers here and now: what other figures are held to.

A shared machine is not as fast on one day as on another, so a figure says little without a limit
that was measured in the same run.
"""

from __future__ import annotations

from configs.schema import FraudConfig
from serving.load_plan import Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.peers import CONNECTIONS, UVICORN, PeerWorld, list_peers, make_answer

SECONDS, WARM_UP_SECONDS = 4.0, 1.0


def measure_uvicorn_ceiling(config: FraudConfig, body: bytes) -> LoadResult:
    """Start uvicorn with an answer that never changes, load it, stop it.

    Args:
        config: ``runs`` is where its log goes.
        body: A transaction, as ``/v1/score`` takes it.

    Returns:
        At saturation, the generator on the same cores.

    Raises:
        ValueError: If uvicorn does not start.
    """
    (peer,) = (peer for peer in list_peers() if peer.name == UVICORN)
    with peer.start(
        PeerWorld(config, config.runs, make_answer("pipeline-main-100000", 0.0123456789012345)),
        body,
    ) as url:
        return measure_load(
            Target(url, peer.path),
            [body],
            rate=None,
            connections=CONNECTIONS,
            seconds=SECONDS,
            warm_up_seconds=WARM_UP_SECONDS,
        )
