"""The states of a batch of requests become its features, a row per request.

How the states are read is ``features.redis_rows``' and ``features.sqlite_rows``'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from features.fraud_rows import COLUMNS, UNREADABLE, compile_kernel
from features.fraud_state import unreadable
from features.row_requests import RowRequests
from features.shared_summaries import Located
from features.windows import Floats, Integers


class RowStates(NamedTuple):
    """The states of a batch, a row per request.

    Attributes:
        customers: State bytes, empty for an unknown customer; ``ips`` likewise.
        summaries: Where to find merchants and categories.
    """

    customers: Sequence[bytes]
    ips: Sequence[bytes]
    summaries: Located


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
    pieces = [*states.customers, *states.ips]
    ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, 2 * rows))
    joined = b"".join(pieces)
    if len(joined) % 8:
        raise unreadable()
    spans = np.zeros((rows, 4), np.int64)  # in bytes until the last line
    spans[1:, 0], spans[:, 1] = ends[: rows - 1], ends[:rows]
    spans[:, 2], spans[:, 3] = ends[rows - 1 : -1], ends[rows:]
    spans //= 8
    features, marks = np.empty((rows, len(COLUMNS))), np.empty(rows, np.int64)
    compile_kernel()(
        np.frombuffer(joined, np.int64),
        spans,
        states.summaries.merchants,
        states.summaries.categories,
        states.summaries.places,
        requests.integers,
        requests.floats,
        features,
        marks,
    )
    if (marks == UNREADABLE).any():
        raise unreadable()
    return features, marks
