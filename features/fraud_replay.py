"""Past transactions get the features they should have had, in two ways that share little.

``recompute_features`` cuts the history off at each asked row's instant (later events and labels are
not there to be read), rebuilds the entities' states from what is left, and computes the features as
a request would: slow, and the check that nothing leaks.

``replay_features`` computes the window tables a model is trained on, and looks the rows up in them:
the side that what was served is held against.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.fraud import derive
from features.fraud_history import compute_history
from features.fraud_online import compute_online, make_requests
from features.fraud_selection import select_features
from features.fraud_state import EVENT_STATES, LABEL_STATES
from features.state_merge import build_event_states, build_label_states


def replay_features(
    transactions: pd.DataFrame, labels: pd.DataFrame, rows: pd.DataFrame
) -> pd.DataFrame:
    """Compute the features of some transactions from the tables a model is trained on.

    Args:
        transactions: The whole history, in the contract's columns, the rows among it.
        labels: ``transaction_id, is_fraud, label_time``.
        rows: The transactions asked about.

    Returns:
        One row per asked row, in order: ``transaction_id`` and every computed feature.
    """
    columns: dict[str, np.ndarray] = dict(make_requests(rows))
    for table in compute_history(transactions, labels).values():
        keys = [str(name) for name in table.columns[: table.columns.get_loc("event_time")]]
        times = rows["event_time"]
        is_daily = keys == ["merchant_category"]
        asked = rows[keys].assign(event_time=times.dt.floor("D") if is_daily else times)
        values = table.drop_duplicates([*keys, "event_time"])
        joined = asked.merge(values, how="left", on=[*keys, "event_time"], validate="m:1")
        columns |= {str(name): joined[name].to_numpy() for name in values.columns.drop(asked)}
    columns |= derive(columns)
    computed = {name: columns[name] for name in select_features(rows).computed}
    return pd.DataFrame({"transaction_id": rows["transaction_id"].to_numpy(), **computed})


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
