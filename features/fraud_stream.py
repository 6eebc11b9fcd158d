"""A feature store and a configuration become a running stream, and the commands that drive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from configs.schema import StreamSection
from features.connections import UNAVAILABLE, connect_redis, connect_states
from features.redis_log import RedisLog
from features.state_store import StateStore
from features.store import FraudFeatureStore
from features.stream_archive import Archive, DeadLetters
from features.stream_log import FileLog, StreamLog, publish
from features.stream_messages import Lateness, encode_transactions
from features.stream_processor import ProcessorSettings, StreamProcessor
from features.windows import SECOND


@dataclass(frozen=True)
class FraudStream:
    """All that a stream of transactions needs.

    Attributes:
        log: Where transactions are published.
        states: The online store they end in.
        archive: What was accepted since the feature store was built.
        dead_letters: What was refused.
        settings: How a processor works.
    """

    log: StreamLog
    states: StateStore
    archive: Archive
    dead_letters: DeadLetters
    settings: ProcessorSettings

    def publish(
        self, transactions: pd.DataFrame, *, available_time: pd.Timestamp | None = None
    ) -> int:
        """Append transactions to the log; see ``features.stream_messages.encode_transactions``."""
        return publish(self.log, encode_transactions(transactions, available_time=available_time))

    def make_processor(
        self,
        *,
        observe: Callable[[np.ndarray], None] = lambda _: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> StreamProcessor:
        """Make a processor of this stream; it reads nothing before it runs."""
        return StreamProcessor(
            log=self.log,
            states=self.states,
            archive=self.archive,
            dead_letters=self.dead_letters,
            settings=self.settings,
            unavailable=UNAVAILABLE,
            observe=observe,
            tell=tell,
        )


def connect_stream(runs: Path, store: FraudFeatureStore, settings: StreamSection) -> FraudStream:
    """Connect to the stream that feeds a feature store.

    Args:
        runs: Folder of the log, the archive and the dead letters.
        store: The opened store; it knows whether it is in Redis.
        settings: The configuration's section.
    """
    folder = runs / "stream"
    num_partitions = settings.num_partitions
    log: StreamLog = (
        FileLog(folder / "log", num_partitions=num_partitions)
        if store.redis_url is None
        else RedisLog(connect_redis(store.redis_url), num_partitions=num_partitions)
    )
    return FraudStream(
        log=log,
        states=connect_states(store.folder, store.redis_url),
        archive=open_archive(runs, store),
        dead_letters=DeadLetters(folder / "dead_letters.db"),
        settings=ProcessorSettings(
            batch_rows=settings.batch_rows,
            wait_seconds=settings.wait_seconds,
            lease_seconds=settings.lease_seconds,
            lateness=Lateness(
                max_lateness=round(settings.max_lateness_seconds * SECOND),
                max_clock_skew=round(settings.max_clock_skew_seconds * SECOND),
            ),
        ),
    )


def open_archive(runs: Path, store: FraudFeatureStore) -> Archive:
    """Open the archive of what this build of the feature store has accepted since."""
    return Archive(runs / "stream" / "archive" / store.build)
