"""A stretch of history becomes requests to a running service, in time order, as it happened.

Hour by hour: the hour's events go through the stream into the online store, then are scored.
Windows are strictly past, so a transaction sees those before it, and neither itself nor what
follows. Labels are published once a day, those that had arrived by midnight.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.console import Console

from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from features.fraud_stream import FraudStream, connect_stream, select_days
from features.publish import publish_labels
from features.store import open_feature_store
from features.stream_batch import StreamCounts
from serving.client import replay_transactions
from serving.prediction_log import get_prediction_folder


def replay_history(
    url: str,
    *,
    stream: FraudStream,
    transactions: pd.DataFrame,
    labels: pd.DataFrame,
    since: pd.Timestamp,
    until: pd.Timestamp,
) -> pd.DataFrame:
    """Publish and score the transactions of ``[since, until)``.

    Args:
        url: The service's address.
        stream: Of the feature store that the service reads, which is as of ``since``.
        transactions: The whole history; labels may speak of any of it.
        labels: ``transaction_id, is_fraud, label_time``.
        since: First instant, UTC.
        until: First instant after, UTC.

    Returns:
        The answers, as ``serving.client.replay_transactions``.
    """
    times = transactions["event_time"]
    rows = transactions[(times >= since) & (times < until)]
    hours = [hour for _, hour in rows.groupby(rows["event_time"].dt.floor("h"))]
    published_day: pd.Timestamp | None = None
    processor = stream.make_processor(tell=Console(stderr=True).print)

    def publish(hour: pd.DataFrame) -> None:
        nonlocal published_day
        day = hour["event_time"].iloc[0].normalize()
        if day != published_day:
            publish_labels(stream.states, transactions, labels[labels["label_time"] < day])
            published_day = day
        stream.publish(hour)
        processor.run(until_empty=True)
        _check_accepted(processor.counts)
        advance(1)

    with show_progress(f"Replaying {len(rows):,} transactions", total=len(hours)) as advance:
        return replay_transactions(url, hours, before_slice=publish)


def run_replay(config: FraudConfig, *, url: str, days: int) -> dict[str, Any]:
    """Replay the days that follow the instant the online store was built for.

    Args:
        config: ``runs`` holds the history and the feature store that the service reads.
        url: The running service.
        days: How many days.

    Returns:
        ``transactions``, ``since``, ``until``, ``decisions`` (counts), ``wrote`` and ``next``.

    Raises:
        ValueError: If no transaction follows the store's instant, or the service does not answer.
    """
    store = open_feature_store(config.runs)
    select_days(config.runs, store, days=days)  # an error if there are none
    since, until = store.built_as_of, store.built_as_of + pd.Timedelta(days=days)
    answers = replay_history(
        url,
        stream=connect_stream(config.runs, store, config.stream),
        transactions=load_transactions(config.runs),
        labels=load_labels(config.runs),
        since=since,
        until=until,
    )
    return {
        "transactions": len(answers),
        "since": since.isoformat(),
        "until": until.isoformat(),
        "decisions": {str(k): int(n) for k, n in answers["decision"].value_counts().items()},
        "wrote": [str(get_prediction_folder(config.runs))],
        "next": "throughline fraud monitor",
    }


def _check_accepted(counts: StreamCounts) -> None:
    """Stop where the stream refused what is replayed: windows would stand still, and scores err.

    Raises:
        ValueError: If a transaction became a dead letter.
    """
    refused = counts.late + counts.future + counts.undecodable
    if refused:
        raise ValueError(
            f"the stream refused {refused} transactions of the replay ({counts.late} late,"
            f" {counts.future} from the future, {counts.undecodable} undecodable): see"
            " stream/dead_letters.db of the runs folder for the reasons"
        )
