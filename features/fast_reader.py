"""Transactions being scored become online features, without Feast's SDK in between.

The same store and the same states as ``features.store.read_online_features``: all entities of all
transactions in one round trip, window values by the kernel that computed history.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.fraud_online import compute_online, make_requests
from features.fraud_state import STATE_KEYS, find_tiled
from features.state_store import StateStore


class FastReader:
    """Read online features.

    Args:
        states: The online store.
    """

    def __init__(self, states: StateStore) -> None:
        self._states = states

    def read(self, transactions: pd.DataFrame) -> dict[str, np.ndarray]:
        """Compute the features of transactions, each as of its own time.

        Args:
            transactions: In the contract's columns; their entities may be unknown.

        Returns:
            Every feature that the columns allow, shape ``(transactions,)``, and ``is_tiled``:
            whether a part of an entity's history is held at a lower resolution.

        Raises:
            StoreEmptyError: If the store is not whole.
        """
        wanted = [state for state, key in STATE_KEYS.items() if key in transactions]
        rows, entities = {}, {}
        for key in dict.fromkeys(STATE_KEYS[state] for state in wanted):
            rows[key], unique = pd.factorize(transactions[key].fillna(""))
            entities[key] = [str(entity) for entity in unique]
        found = self._states.read(entities, wanted)
        states = {state: [found[state][row] for row in rows[STATE_KEYS[state]]] for state in wanted}
        tiled = np.zeros(len(transactions), dtype=bool)
        for state in wanted:
            tiled |= find_tiled(states[state])
        columns = compute_online(states, make_requests(transactions))
        return {**columns, "is_tiled": tiled}
