"""A feature store and a configuration become a running stream, and the commands that drive it."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from configs.schema import FraudConfig
from configs.sections import StreamSection
from data.fraud import load_transactions
from features.connections import connect_redis, is_temporary
from features.fraud_history import to_times
from features.redis_log import RedisLog
from features.state_store import StateStore
from features.store import FraudFeatureStore, get_archive_folder, open_feature_store, read_build
from features.stream_archive import Archive, DeadLetters
from features.stream_log import FileLog, StreamLog, publish
from features.stream_messages import Lateness, encode_transactions
from features.stream_processor import ProcessorSettings, StreamProcessor
from features.windows import SECOND

MAX_LIVE_SECONDS = 3600.0
"""What took longer was not published live but replayed, at times of its own."""


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
            is_temporary=is_temporary,
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
    return FraudStream(
        log=open_log(runs, store, settings),
        states=store.states,
        archive=open_archive(runs),
        dead_letters=DeadLetters(folder / "dead_letters.db"),
        settings=ProcessorSettings(
            batch_rows=settings.batch_rows,
            wait_seconds=settings.wait_seconds,
            gather_seconds=settings.gather_seconds,
            lease_seconds=settings.lease_seconds,
            lateness=Lateness(
                max_lateness=round(settings.max_lateness_seconds * SECOND),
                max_clock_skew=round(settings.max_clock_skew_seconds * SECOND),
            ),
        ),
    )


def open_log(runs: Path, store: FraudFeatureStore, settings: StreamSection) -> StreamLog:
    """Open the log of the stream; see ``connect_stream``.

    Raises:
        ValueError: If no Redis answers, or the log has another number of partitions.
    """
    num_partitions = settings.num_partitions
    if store.log_redis_url is None:
        return FileLog(runs / "stream" / "log", num_partitions=num_partitions)
    return RedisLog(connect_redis(store.log_redis_url), num_partitions=num_partitions)


def open_archive(runs: Path) -> Archive:
    """Open the archive of what the feature store has accepted since it was built.

    Each build has its own, also for a processor that runs while the store is built anew.
    """
    return Archive(lambda: get_archive_folder(runs) / read_build(runs))


def run_stream(
    config: FraudConfig, *, publish_days: int | None = None, until_empty: bool = False
) -> dict[str, Any]:
    """Run the stage: process the log until Ctrl-C, or until it is empty.

    Args:
        config: ``runs`` holds the feature store, and the log, archive and dead letters.
        publish_days: First publish this many days of the history that follow the store's instant.
        until_empty: End when everything in the log is acknowledged.

    Returns:
        ``published``, what became of the transactions (see ``StreamCounts``), ``waiting`` in the
        log, ``watermark``, ``dead_letters`` by reason, transactions a second, seconds from
        ``available_time`` to readable (of live transactions only), ``wrote`` and ``next``.

    Raises:
        ValueError: If no transaction follows the store's instant.
    """
    store = open_feature_store(config.runs)
    if config.profile == "stack" and store.redis_url is None:
        raise ValueError(
            f"the online store of {config.runs} is a file, and profile=stack was asked for;"
            " build it in Redis: `throughline fraud features --set profile=stack`"
        )
    stream = connect_stream(config.runs, store, config.stream)
    published = 0
    if publish_days is not None:
        published = stream.publish(select_days(config.runs, store, days=publish_days))
    freshness: deque[np.ndarray] = deque(maxlen=1000)
    console = Console(stderr=True)
    processor = stream.make_processor(observe=freshness.append, tell=console.print)
    started = time.perf_counter()
    with _stop_between_batches() as is_told_to_stop, _report(console, processor) as tick:
        processor.run(until_empty=until_empty, should_stop=lambda: tick() or is_told_to_stop())
        if is_told_to_stop():
            console.print("stopped; what was not acknowledged stays in the log")
    seconds = time.perf_counter() - started
    return {
        "published": published,
        **asdict(processor.counts),
        "waiting": sum(map(stream.log.count_waiting, range(stream.log.num_partitions))),
        "watermark": _format_watermark(processor.watermark),
        "dead_letters": stream.dead_letters.count(),
        "seconds": round(seconds, 2),
        "transactions_per_second": round(processor.counts.accepted / seconds),
        "freshness": summarise_freshness(freshness),
        "wrote": [store.redis_url or str(store.folder / "online.db"), str(config.runs / "stream")],
        "next": "throughline fraud serve",
    }


def select_days(runs: Path, store: FraudFeatureStore, *, days: int) -> pd.DataFrame:
    """Return the history's transactions of the days that follow the store's instant.

    Raises:
        ValueError: If there is none.
    """
    history = load_transactions(runs)
    until = store.built_as_of + pd.Timedelta(days=days)
    rows = history[history["event_time"].between(store.built_as_of, until, inclusive="left")]
    if rows.empty:
        raise ValueError(
            f"no transactions in the {days} days after {store.built_as_of:%Y-%m-%d %H:%M}, which"
            " the online store was built for; build it earlier with"
            " `throughline fraud features --as-of TIME`"
        )
    return rows


def summarise_freshness(freshness: deque[np.ndarray]) -> dict[str, float] | None:
    """Summarise seconds from event to readable, in milliseconds; ``None`` for a replay."""
    seconds = np.concatenate([*freshness, np.empty(0)])
    live = seconds[seconds < MAX_LIVE_SECONDS]
    if not live.size:
        return None
    p50, p99 = np.percentile(live, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


@contextmanager
def _stop_between_batches() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C or SIGTERM end the work after the batch in hand, so that its counts are whole.

    A second one ends it at once, which loses nothing but counts. Outside the main thread, where
    signals cannot be taken, nothing changes.
    """
    told = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(_number: int, _frame: FrameType | None) -> None:
        told.set()
        restore()

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield told.is_set
    finally:
        restore()


@contextmanager
def _report(console: Console, processor: StreamProcessor) -> Iterator[Callable[[], bool]]:
    """Show what the processor has done, and how fast, while it runs."""
    started = time.perf_counter()
    with console.status("Processing the stream (Ctrl-C stops it)") as status:

        def tick() -> bool:
            counts, seconds = processor.counts, time.perf_counter() - started
            status.update(
                f"Processing the stream: {counts.accepted:,} accepted, {counts.duplicates:,}"
                f" duplicates, {counts.accepted / max(seconds, 1e-9):,.0f}/s (Ctrl-C stops it)"
            )
            return False

        yield tick


def _format_watermark(watermark: int | None) -> str | None:
    if watermark is None:
        return None
    return str(to_times(np.array([watermark]))[0].isoformat())
