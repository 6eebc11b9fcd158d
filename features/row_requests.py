"""Transactions being scored become the integers and floats that the row kernel reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np

from features.fraud_state import encode_entity
from features.windows import Floats, Integers

_read_columns = attrgetter(
    *("event_time", "customer_id", "amount", "merchant_id", "merchant_category"),
    *("ip", "device_id", "latitude", "longitude"),
)


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


class RowRequests(NamedTuple):
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


def build_row_requests(transactions: Sequence[Transaction]) -> RowRequests:
    """Lay transactions out as rows, in the same order; missing numbers become NaN, ids code 0.

    A request's share of a batch is a few microseconds, so columns are made by calls into C.
    """
    columns = zip(*map(_read_columns, transactions), strict=True)
    times, customers, amounts, merchants, categories, ips, devices, latitudes, longitudes = columns
    integers = np.empty((len(customers), 5), np.int64)
    # A double holds seconds of this century to a fifth of a microsecond.
    integers[:, 0] = np.rint(np.fromiter(map(datetime.timestamp, times), np.float64) * 1e6)
    integers[:, 1] = list(map(encode_entity, merchants))
    integers[:, 2] = list(map(encode_entity, devices))
    integers[:, 3] = list(map(bool, ips))
    integers[:, 4] = list(map(bool, categories))
    floats = np.empty((len(customers), 3))
    floats[:, 0], floats[:, 1], floats[:, 2] = amounts, latitudes, longitudes  # None becomes NaN
    return RowRequests(customers, ips, merchants, categories, integers, floats)
