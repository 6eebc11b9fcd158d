"""Transactions and labels, as they happen, become states in the online store.

Publishing brings up to date what ``features.store.materialise`` wrote, and may be repeated: the
same events twice leave the same states.
"""

from __future__ import annotations

import pandas as pd

from features.definitions import STATE_VIEWS
from features.fraud_state import (
    EVENT_STATES,
    LABEL_STATES,
    build_label_states,
    make_events,
    merge_events,
)
from features.store import FraudFeatureStore


def publish_transactions(store: FraudFeatureStore, transactions: pd.DataFrame) -> None:
    """Add transactions to their entities' states; publishing one twice changes nothing.

    Args:
        store: An opened feature store.
        transactions: New events, in any order. Empty is allowed.
    """
    for state, (key, retention) in EVENT_STATES.items():
        if key not in transactions:
            continue
        with_key = transactions[transactions[key].notna()]
        rows = {str(name): row for name, row in with_key.groupby(key, sort=False).indices.items()}
        if not rows:
            continue
        events = make_events(with_key, state)
        held = _read_states(store, state, list(rows))
        merged = [
            merge_events(before, events[row], retention=retention)
            for before, row in zip(held, rows.values(), strict=True)
        ]
        _write_states(store, state, list(rows), merged)


def publish_labels(
    store: FraudFeatureStore, transactions: pd.DataFrame, labels: pd.DataFrame
) -> None:
    """Rebuild the label states from the labels that have arrived; a daily batch, idempotent.

    Args:
        store: An opened feature store.
        transactions: All transactions the labels may speak of.
        labels: All labels that had arrived.
    """
    for state, key in LABEL_STATES.items():
        if key not in transactions:
            continue
        states = build_label_states(transactions, labels, state)
        _write_states(store, state, states[key].tolist(), states[state].tolist())


def _read_states(store: FraudFeatureStore, state: str, entities: list[str]) -> list[bytes | None]:
    found = store.feast.get_online_features(
        features=[f"{state}_state:{state}"], entity_rows={STATE_VIEWS[state]: entities}
    )
    states: list[bytes | None] = found.to_dict()[state]
    return states


def _write_states(
    store: FraudFeatureStore, state: str, entities: list[str], states: list[bytes]
) -> None:
    rows = pd.DataFrame({STATE_VIEWS[state]: entities, state: states})
    rows["event_time"] = pd.Timestamp.now(tz="UTC")
    store.feast.write_to_online_store(f"{state}_state", df=rows)
