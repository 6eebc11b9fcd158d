"""The states of a batch of requests become its features, a row per request.

How the states are read is ``features.redis_rows``' and ``features.sqlite_rows``'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from features.fraud_rows import COLUMNS, UNREADABLE, compile_kernel
from features.fraud_state import unreadable
from features.row_requests import RowRequests
from features.windows import Floats, Integers


@dataclass(frozen=True)
class RowStates:
    """The states of a batch, a row per request.

    Attributes:
        customers: State bytes, ``None`` for an unknown customer; ``ips`` likewise.
        places: Where each row's summaries begin in ``summaries``, -1 if it names no entity.
            Shape ``(rows, 3)``.
        summaries: Words of ``features.state_summaries``.
    """

    customers: Sequence[bytes | None]
    ips: Sequence[bytes | None]
    places: Integers
    summaries: Integers


class RowReader(Protocol):
    """An online store that is read a batch at a time."""

    async def read(self, requests: RowRequests) -> RowStates:
        """Read the states of a batch's entities.

        Raises:
            StoreEmptyError: If the store is not whole.
            OSError: If it cannot be reached; or whatever else the store raises.
        """
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


def compute_features(states: RowStates, requests: RowRequests) -> tuple[Floats, Integers]:
    """Compute the features of a batch.

    Returns:
        ``features.fraud_rows.COLUMNS``, shape ``(rows, 27)``, and the kernel's marks.

    Raises:
        ValueError: If the store holds bytes that are no state.
    """
    rows = len(requests)
    pieces: list[bytes] = []
    used = 0
    borders: list[int] = []
    for customer, ip in zip(states.customers, states.ips, strict=True):
        for state in (customer, ip):
            borders.append(used)
            if state is not None:
                pieces.append(state)
                used += len(state)
            borders.append(used)
    spans = np.array(borders, np.int64).reshape(rows, 4) // 8
    joined = b"".join(pieces)
    if len(joined) % 8:
        raise unreadable()
    features, marks = np.empty((rows, len(COLUMNS))), np.empty(rows, np.int64)
    compile_kernel()(
        np.frombuffer(joined, np.int64),
        spans,
        states.summaries,
        states.places,
        requests.integers,
        requests.floats,
        features,
        marks,
    )
    if (marks == UNREADABLE).any():
        raise unreadable()
    return features, marks
