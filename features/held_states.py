"""States that a lease's holder has read or written stay with it, so that it reads each once.

Whoever holds a partition's lease is the only one who writes the states of its entities, and each
write fails once the lease was not held without a break (a new lease has a new token). So as long as
writes go through, what was read and written is what the store holds. Whatever goes wrong between
reading and writing, all of it is thrown away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from features.fraud_state import STATE_KEYS
from features.state_store import StateStore, Update

MAX_BYTES = 256 << 20
"""Beyond this all are read anew."""


class HeldStates:
    """What one lease's holder knows; made with the lease, kept as long as its writes go through.

    Args:
        states: The online store.
    """

    def __init__(self, states: StateStore) -> None:
        self._states = states
        self._held: defaultdict[str, dict[str, bytes | None]] = defaultdict(dict)
        self._num_bytes = 0

    def read(
        self, entities: Mapping[str, Sequence[str]], states: Sequence[str]
    ) -> dict[str, list[bytes | None]]:
        """Read states of entities, of the store only those not held; see ``StateStore.read``.

        Args:
            entities: Ids by join key.
            states: Which states, one for each join key.
        """
        if self._num_bytes > MAX_BYTES:
            self._held.clear()
            self._num_bytes = 0
        held = {STATE_KEYS[state]: self._held[state] for state in states}
        missing = {key: [e for e in entities[key] if e not in held[key]] for key in held}
        if any(missing.values()):
            for state, values in self._states.read(missing, states).items():
                self._keep(state, missing[STATE_KEYS[state]], values)
        return {
            state: list(map(self._held[state].__getitem__, entities[STATE_KEYS[state]]))
            for state in states
        }

    def keep(self, updates: Sequence[Update]) -> None:
        """Keep what was written just now."""
        for state, entity, value, _ in updates:
            self._num_bytes += len(value) - len(self._held[state][entity] or b"")
            self._held[state][entity] = value

    def _keep(self, state: str, entities: Sequence[str], values: Sequence[bytes | None]) -> None:
        self._held[state].update(zip(entities, values, strict=True))
        self._num_bytes += sum(len(value) for value in values if value is not None)
