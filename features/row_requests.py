"""Transactions being scored become the integers and floats that the row kernel reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np

from features.fraud_state import encode_entity
from features.windows import Floats, Integers

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NAN = float("nan")


class Transaction(Protocol):
    """What a request says of its transaction, by the contract's names; ``None`` if it does not."""

    @property
    def event_time(self) -> datetime: ...  # noqa: D102
    @property
    def customer_id(self) -> str: ...  # noqa: D102
    @property
    def amount(self) -> float: ...  # noqa: D102
    @property
    def merchant_id(self) -> str | None: ...  # noqa: D102
    @property
    def merchant_category(self) -> str | None: ...  # noqa: D102
    @property
    def ip(self) -> str | None: ...  # noqa: D102
    @property
    def device_id(self) -> str | None: ...  # noqa: D102
    @property
    def latitude(self) -> float | None: ...  # noqa: D102
    @property
    def longitude(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True)
class RowRequests:
    """Requests, a row each.

    Attributes:
        customers: Ids; so are ``ips``, ``merchants`` and ``categories``, ``None`` where missing.
        integers: ``features.fraud_rows.REQUEST_INTEGERS``. Shape ``(rows, 5)``.
        floats: ``features.fraud_rows.REQUEST_FLOATS``. Shape ``(rows, 3)``.
    """

    customers: Sequence[str]
    ips: Sequence[str | None]
    merchants: Sequence[str | None]
    categories: Sequence[str | None]
    integers: Integers
    floats: Floats

    def __len__(self) -> int:
        return len(self.customers)


def build_row_requests(transactions: Sequence[Transaction]) -> RowRequests:
    """Lay transactions out as rows, in the same order; missing numbers become NaN, ids code 0."""
    integers: list[int] = []
    floats: list[float] = []
    for row in transactions:
        integers += (
            (row.event_time - _EPOCH) // _MICROSECOND,
            encode_entity(row.merchant_id),
            encode_entity(row.device_id),
            encode_entity(row.ip),
            encode_entity(row.merchant_category),
        )
        floats += (
            row.amount,
            _NAN if row.latitude is None else row.latitude,
            _NAN if row.longitude is None else row.longitude,
        )
    return RowRequests(
        customers=[row.customer_id for row in transactions],
        ips=[row.ip for row in transactions],
        merchants=[row.merchant_id for row in transactions],
        categories=[row.merchant_category for row in transactions],
        integers=np.array(integers, np.int64).reshape(-1, 5),
        floats=np.array(floats, np.float64).reshape(-1, 3),
    )
