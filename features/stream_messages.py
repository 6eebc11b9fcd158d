"""A transaction becomes one line of the stream, and comes back checked.

A line is a JSON object. Beside the contract's columns it says when the transaction reached its
publisher, ``available_time``: whether an event is too late is judged by that, so that every
processor and every replay judges alike, however long the line waited in the log.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from data.fraud_columns import LATEST_TIME, MAX_AMOUNT
from features.fraud_history import to_microseconds, to_times
from features.windows import DAY, SECOND

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Time = Annotated[int, msgspec.Meta(ge=0, le=LATEST_TIME.value // 1000)]
"""Microseconds since 1970-01-01 UTC, up to the contract's latest."""


class StreamTransaction(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One transaction on the stream; what else the line holds is kept by the archive."""

    transaction_id: Id
    event_time: Time
    available_time: Time
    customer_id: Id
    amount: Annotated[float, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
    merchant_id: Id | None = None
    merchant_category: Id | None = None
    card_type: Id | None = None
    device_id: Id | None = None
    ip: Id | None = None
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)] | None = None


COLUMNS = tuple(field for field in StreamTransaction.__struct_fields__ if field != "available_time")
_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(StreamTransaction)
MAX_LINE_BYTES = 65_536
MAX_AHEAD = DAY
"""How far ahead of the processor's clock an event may be, microseconds: the slack that states have;
wide, so that processors that read a line at different times judge it alike."""


class Lateness(NamedTuple):
    """How far an event may lie from the instant it reached its publisher, microseconds.

    Attributes:
        max_lateness: After it; the watermark stands this far behind ``available_time``.
        max_clock_skew: Before it, since clocks differ.
    """

    max_lateness: int
    max_clock_skew: int


def decode(line: bytes) -> StreamTransaction:
    """Read one line.

    Raises:
        ValueError: If it is no transaction, with the reason.

    >>> decode(b"{")
    Traceback (most recent call last):
    ...
    ValueError: undecodable: Input data was truncated
    """
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"undecodable: longer than {MAX_LINE_BYTES} bytes")
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"undecodable: {error}") from None


def check_lateness(transaction: StreamTransaction, limits: Lateness, *, now: int) -> str | None:
    """Say why a transaction cannot take its place, or ``None`` if it can.

    Args:
        transaction: What was read.
        limits: What is too late, and what too early.
        now: This machine's clock, microseconds: a publisher whose clock is far ahead would else
            push the older events of its entities out of their states.
    """
    behind = transaction.available_time - transaction.event_time
    if transaction.event_time - now > MAX_AHEAD:
        ahead = (transaction.event_time - now) / SECOND
        return f"from the future: {ahead:.0f} s ahead of this machine's clock"
    if behind > limits.max_lateness:
        allowed = limits.max_lateness / SECOND
        return f"late: {behind / SECOND:.0f} s behind, the watermark is at {allowed:.0f} s"
    if behind < -limits.max_clock_skew:
        return f"from the future: {-behind / SECOND:.0f} s ahead of its publisher's clock"
    return None


def encode_transactions(
    transactions: pd.DataFrame, *, available_time: pd.Timestamp | None = None
) -> Iterator[tuple[StreamTransaction, bytes]]:
    """Turn transactions into lines, in the same order.

    Args:
        transactions: In the contract's columns; others stay behind.
        available_time: When they reached the publisher, UTC; ``None`` for their own times, as
            when a history is replayed as it happened.

    Raises:
        ValueError: If an amount is not a finite number.
    """
    times = to_microseconds(transactions["event_time"])
    if not np.isfinite(transactions["amount"].to_numpy(np.float64)).all():
        raise ValueError("amount must be a finite number in every transaction that is published")
    now = None if available_time is None else int(available_time.value // 1000)
    columns = [column for column in COLUMNS if column in transactions and column != "event_time"]
    values = zip(*(transactions[column].tolist() for column in columns), strict=True)
    for event_time, row in zip(times.tolist(), values, strict=True):
        known = {
            column: value for column, value in zip(columns, row, strict=True) if _is_known(value)
        }
        message = StreamTransaction(
            event_time=event_time, available_time=now if now is not None else event_time, **known
        )
        yield message, _ENCODER.encode(message)


def build_frame(messages: list[StreamTransaction]) -> pd.DataFrame:
    """Turn messages into transactions in the contract's columns, without those nobody has."""
    columns = {name: [getattr(message, name) for message in messages] for name in COLUMNS}
    frame = pd.DataFrame(
        {name: values for name, values in columns.items() if any(v is not None for v in values)}
    )
    if messages:
        frame["event_time"] = to_times(frame["event_time"].to_numpy(np.int64))
    return frame


def _is_known(value: object) -> bool:
    return (
        value is not None
        and value is not pd.NA
        and not (isinstance(value, float) and math.isnan(value))
    )
