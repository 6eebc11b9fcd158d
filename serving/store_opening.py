"""A configuration becomes the online store that the service reads."""

from __future__ import annotations

from configs.schema import FraudConfig
from serving.circuit_breaker import BreakerLimits
from serving.online_store import OnlineStore, OpenedStore

FILE_DEADLINE_SECONDS = 5.0
"""A file is waited for longer than a server: its writers lock it, and then let go."""


def open_fraud_store(config: FraudConfig) -> OnlineStore:
    """Open the feature store of ``runs``.

    Raises:
        FileNotFoundError: If it was not built yet.
        ValueError: If it was built from other transactions than ``runs`` now holds.
    """
    from features.connections import connect_states
    from features.redis_rows import RedisRows
    from features.sqlite_rows import SqliteRows
    from features.store import get_stamp_file, open_feature_store

    serving = config.serving

    def open_store() -> OpenedStore:
        store = open_feature_store(config.runs)
        if store.redis_url is not None:
            deadline_seconds = serving.store_deadline_ms / 1e3
            rows = RedisRows(store.redis_url, refresh_seconds=serving.merchant_refresh_ms / 1e3)
            return OpenedStore(rows, store.features, deadline_seconds)
        folder = store.folder
        reader = SqliteRows(lambda: connect_states(folder, None))
        return OpenedStore(reader, store.features, FILE_DEADLINE_SECONDS)

    return OnlineStore(
        open_store=open_store,
        stamp_file=get_stamp_file(config.runs),
        max_age_seconds=serving.last_known_seconds,
        breaker=BreakerLimits(
            consecutive_failures=serving.breaker_failures,
            open_seconds=serving.breaker_open_seconds,
        ),
    )
