"""Labels, as they arrive, become states in the online store.

Transactions take the stream (``features.fraud_stream``); labels come in daily batches, and
publishing the same ones twice leaves the same states.
"""

from __future__ import annotations

import pandas as pd

from features.fraud_state import LABEL_STATES
from features.state_merge import build_label_states
from features.state_store import StateStore, Update


def publish_labels(states: StateStore, transactions: pd.DataFrame, labels: pd.DataFrame) -> None:
    """Rebuild the label states from the labels that have arrived; a daily batch, idempotent.

    Args:
        states: The online store.
        transactions: All transactions the labels may speak of.
        labels: All labels that had arrived.
    """
    for state, key in LABEL_STATES.items():
        if key in transactions:
            built = build_label_states(transactions, labels, state)
            states.write(list_updates(built, state), lease=None)


def list_updates(built: pd.DataFrame, state: str) -> list[Update]:
    """Turn built states (key, state, ``event_time_us``) into updates of the online store."""
    key, *_ = built.columns
    columns = (built[key], built[state], built["event_time_us"])
    return [
        Update(state, str(entity), value, int(newest))
        for entity, value, newest in zip(*columns, strict=True)
    ]
