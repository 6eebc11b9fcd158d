"""History and the stream's archive become the online store again, all of it.

The online store is a cache: what it knows is in the history that the feature store was built from,
and in what the stream has accepted since. Processors wait while it is rebuilt and go on by
themselves; what they had not acknowledged comes again and changes nothing.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from features.fraud_stream import open_archive
from features.publish import list_updates
from features.state_merge import build_states, list_states
from features.state_store import StateStore
from features.store import FraudFeatureStore, get_archive_folder, open_feature_store
from features.stream_archive import join_transactions, load_earlier

CHUNK = 5_000
"""Entities written at once."""


def load_known_transactions(config: FraudConfig, store: FraudFeatureStore) -> pd.DataFrame:
    """Load every transaction the online store should know, in the contract's columns.

    Returns:
        The history before the instant the store was built for, what the stream had accepted by
        then, and what it accepted since; each transaction once, in time order.
    """
    history = load_transactions(config.runs)
    known = history[history["event_time"] < store.built_as_of]
    earlier = load_earlier(get_archive_folder(config.runs), build=store.build)
    if not earlier.empty:  # it was known to the store when this one was built
        earlier = earlier[earlier["event_time"] < store.built_as_of]
    return join_transactions(known, earlier, open_archive(config.runs).load())


def run_rebuild(config: FraudConfig) -> dict[str, Any]:
    """Restore the online store from history and archive.

    Args:
        config: ``runs`` holds the history, the feature store and the archive.

    Returns:
        ``transactions``, ``entities`` (states written), ``seconds`` while the store could not
        answer, ``wrote`` and ``next``.

    Raises:
        ValueError: If another rebuild is under way.
    """
    with _alone(config.runs / "stream" / "rebuild.lock"):
        return _rebuild(config)


def _rebuild(config: FraudConfig) -> dict[str, Any]:
    store = open_feature_store(config.runs)
    states = store.states
    started = time.perf_counter()
    states.clear()  # from here on processors wait, so the archive stands still
    transactions, labels = load_known_transactions(config, store), load_labels(config.runs)
    newest = max([store.built_as_of, *transactions["event_time"].tail(1)])
    arrived = labels[labels["label_time"] < newest]
    kinds = list_states(transactions)
    num_written = 0
    with show_progress("Rebuilding the online store", total=len(kinds)) as advance:
        for state in kinds:
            num_written += _write_kind(states, transactions, arrived, state)
            advance(1)
    states.mark_whole()
    return {
        "transactions": len(transactions),
        "entities": num_written,
        "until": newest.isoformat(),
        "seconds": round(time.perf_counter() - started, 2),
        "wrote": [store.redis_url or str(store.folder / "online.db")],
        "next": "throughline fraud parity",
    }


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process: a second rebuild would undo what came after one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError("another `fraud rebuild` is under way; wait until it ends") from None
        yield


def _write_kind(
    states: StateStore, transactions: pd.DataFrame, labels: pd.DataFrame, state: str
) -> int:
    built = build_states(transactions, labels, state)
    updates = list_updates(built, state)
    for start in range(0, len(updates), CHUNK):
        states.write(updates[start : start + CHUNK], lease=None)
    return len(updates)
