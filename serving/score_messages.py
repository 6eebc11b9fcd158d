"""What the fast lane is asked and what it answers: JSON decoded and checked in one step (msgspec).

The same transactions as ``serving.fraud_messages``, which describes them to people and to OpenAPI:
the same fields, limits and refusals, at a hundredth of the time. Nothing is coerced. Times alone
differ: they are RFC 3339, so seconds are not left out; beyond microseconds they are rounded, not
cut off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from data.fraud_columns import EARLIEST_TIME, LATEST_TIME, MAX_AMOUNT
from serving.prediction_log import Decision

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Category = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
EventTime = Annotated[datetime, msgspec.Meta(tz=True)]


class Transaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One card transaction to be scored; only the first four fields are required."""

    transaction_id: Identifier
    event_time: EventTime
    customer_id: Identifier
    amount: Annotated[float, msgspec.Meta(ge=0.0, le=MAX_AMOUNT)]
    card_type: Category | None = None
    merchant_id: Identifier | None = None
    merchant_category: Category | None = None
    ip: Identifier | None = None
    device_id: Identifier | None = None
    latitude: Annotated[float, msgspec.Meta(ge=-90.0, le=90.0)] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180.0, le=180.0)] | None = None
    extra: dict[Identifier, float | Category | None] = {}


class TransactionBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several transactions, answered in the same order, each customer's by one model."""

    transactions: Annotated[list[Transaction], msgspec.Meta(min_length=1)]


class Reason(msgspec.Struct, frozen=True):
    """How far one feature moved the score, in the model's own unit (log odds for trees)."""

    feature: str
    contribution: float


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one transaction is answered; ``reasons`` only if they were asked for."""

    transaction_id: str
    score: float
    decision: Decision
    model_version: str
    degraded_reason: str | None
    reasons: list[Reason] | None = None


class AnswerBatch(msgspec.Struct, frozen=True):
    """One answer per transaction, in the order of the request."""

    predictions: list[Answer]


class RequestError(ValueError):
    """A body that does not fit; the message says where and why."""


_decode_one = msgspec.json.Decoder(Transaction).decode
_decode_batch = msgspec.json.Decoder(TransactionBatch).decode
encode = msgspec.json.Encoder().encode


def read_transaction(body: bytes, *, extra: Mapping[str, bool]) -> Transaction:
    """Decode the body of ``/v1/score``.

    Args:
        body: JSON.
        extra: The pass-through columns the features were built from: name -> is it categorical.

    Raises:
        RequestError: If it does not fit.
    """
    try:
        transaction = _decode_one(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(str(error)) from None
    _check(transaction, extra, where="$")
    return transaction


def read_transactions(
    body: bytes, *, extra: Mapping[str, bool], max_rows: int
) -> list[Transaction]:
    """Decode the body of ``/v1/score_batch``; see ``read_transaction``.

    Raises:
        RequestError: If it does not fit, or has more than ``max_rows`` transactions.
    """
    try:
        transactions = _decode_batch(body).transactions
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(str(error)) from None
    if len(transactions) > max_rows:
        raise RequestError(
            f"has {len(transactions)} rows; at most {max_rows} are allowed - at `$.transactions`"
        )
    for row, transaction in enumerate(transactions):
        _check(transaction, extra, where=f"$.transactions[{row}]")
    return transactions


def _check(transaction: Transaction, extra: Mapping[str, bool], *, where: str) -> None:
    """Check what the types cannot say."""
    time = transaction.event_time
    is_plain = EARLIEST_TIME.year < time.year < LATEST_TIME.year - 1  # comparing zones takes 1 us
    if not is_plain and not EARLIEST_TIME <= time <= LATEST_TIME:
        raise RequestError(f"Expected a time from 1970 to 2100 - at `{where}.event_time`")
    for name, value in transaction.extra.items():
        if name not in extra:
            known = ", ".join(sorted(extra)[:20]) or "none"
            raise RequestError(
                f"no column of the training data; known: {known} - at `{where}.extra.{name}`"
            )
        if value is not None and isinstance(value, str) != extra[name]:
            kind = "str" if extra[name] else "float"
            raise RequestError(f"Expected `{kind}` - at `{where}.extra.{name}`")
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"Expected a finite number - at `{where}.extra.{name}`")


def make_probe() -> Transaction:
    """Make up a transaction, to ask the store and the model whether they answer."""
    return Transaction(
        transaction_id="readiness-probe",
        event_time=datetime(2026, 1, 1, tzinfo=UTC),
        customer_id="readiness-probe",
        amount=1.0,
    )
