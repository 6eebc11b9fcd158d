"""Transactions are scored again from what was known at their time: the check that nothing leaks.

For each asked row the history is cut off at the row's instant (later events and labels are not
there to be read), the entities' states are rebuilt from what is left, and the features are computed
as a request would. Slow, simple and independent of the precomputed tables.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.fraud_online import compute_online, make_requests
from features.fraud_selection import select_features
from features.fraud_state import EVENT_STATES, LABEL_STATES
from features.state_merge import build_event_states, build_label_states


def recompute_features(
    transactions: pd.DataFrame, labels: pd.DataFrame, rows: pd.DataFrame
) -> pd.DataFrame:
    """Compute the features of some transactions from truncated history.

    Args:
        transactions: The whole history, in the contract's columns.
        labels: ``transaction_id, is_fraud, label_time``.
        rows: The transactions to recompute; a few dozen, this takes milliseconds each.

    Returns:
        One row per asked row, in order: ``transaction_id`` and every computed feature.
    """
    arrived = labels.merge(
        transactions[["transaction_id", *_keys_of(transactions)]], on="transaction_id"
    )
    parts = [
        _recompute_row(transactions, arrived, rows.iloc[[position]])
        for position in range(len(rows))
    ]
    return pd.concat(parts, ignore_index=True)


def _recompute_row(
    transactions: pd.DataFrame, arrived: pd.DataFrame, row: pd.DataFrame
) -> pd.DataFrame:
    now = row["event_time"].iloc[0]
    past = transactions[transactions["event_time"] < now]
    known = arrived[arrived["label_time"] < now]
    states = {}
    for state, kind in EVENT_STATES.items():
        key = kind.key
        if key in row:
            own = past[(past[key] == row[key].iloc[0]).to_numpy()]
            states[state] = [build_event_states(own, state)[state].iloc[0] if len(own) else None]
    for state, key in LABEL_STATES.items():
        if key in row:
            own = known[(known[key] == row[key].iloc[0]).to_numpy()]
            built = build_label_states(own, own, state)[state]
            states[state] = [built.iloc[0] if len(own) else None]
    columns = compute_online(states, make_requests(row))
    computed = select_features(row).computed
    values = {name: np.asarray(columns[name]) for name in computed}
    return pd.DataFrame({"transaction_id": row["transaction_id"].to_numpy(), **values})


def _keys_of(transactions: pd.DataFrame) -> list[str]:
    return [key for key in LABEL_STATES.values() if key in transactions]
