"""The states of a batch of requests become its features, a row per request.

How the states are read is ``features.redis_rows``' and ``features.sqlite_rows``'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from features.fraud_rows import COLUMNS, UNREADABLE, compile_kernel
from features.row_requests import RowRequests
from features.shared_summaries import Located
from features.summary_arena import UNREADABLE_PLACE
from features.windows import Floats, Integers


class RowStates(NamedTuple):
    """The states of a batch, a row per request.

    Attributes:
        customers: What the store holds of each customer, empty for an unknown one: a state, wrapped
            as ``features.feast_layout.encode_value`` does. ``ips`` likewise.
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
        ``features.fraud_rows.COLUMNS``, shape ``(rows, 27)``, and the kernel's marks; a row marked
        ``UNREADABLE``, of which the store holds bytes that are no state, has no features.
    """
    rows = len(requests.customers)
    messages = [*states.customers, *states.ips]
    ends = np.cumsum(np.fromiter(map(len, messages), np.int64, 2 * rows))
    features, marks = np.empty((rows, len(COLUMNS))), np.empty(rows, np.int64)
    compile_kernel()(
        np.frombuffer(b"".join(messages), np.uint8),
        ends,
        states.summaries.merchants,
        states.summaries.categories,
        states.summaries.places,
        requests.integers,
        requests.floats,
        features,
        marks,
    )
    marks[(states.summaries.places == UNREADABLE_PLACE).any(axis=1)] = UNREADABLE
    features[marks == UNREADABLE] = np.nan
    return features, marks
