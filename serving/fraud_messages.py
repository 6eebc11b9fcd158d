"""What the fraud service is asked and what it answers: JSON becomes typed, bounded messages.

A message that does not fit is refused with the path of each wrong field, and never more than
``MAX_REPORTED_ERRORS`` of them, so a hostile body cannot buy a long answer. Nothing is coerced:
``"12"`` is no amount, ``1`` is no time, and an unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from data.fraud_columns import EARLIEST_TIME, LATEST_TIME, MAX_AMOUNT
from serving.prediction_log import Decision

MAX_REPORTED_ERRORS = 20
MAX_LISTED_ERRORS = 1000  # pydantic spends about 10 us on describing one


def _refuse_unix_time(value: object) -> object:
    """Refuse ``1767225600``, which pydantic would read as seconds (or milliseconds) in UTC."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise PydanticCustomError(
            "time_format", "Input should be an ISO 8601 time such as 2026-01-31T08:00:00Z"
        )
    return value


def _check_range(time: datetime) -> datetime:
    """Refuse a time that the data contract would refuse."""
    if not EARLIEST_TIME <= time <= LATEST_TIME:
        raise PydanticCustomError("time_range", "Input should be a time from 1970 to 2100")
    return time.astimezone(UTC)


def _say_nullable(schema: dict[str, Any]) -> None:
    """Say "or null" as OpenAPI 3.0 does, which BentoML writes; it would drop JSON schema's way."""
    for field in schema.get("properties", {}).values():
        for part in (field, field.get("additionalProperties")):
            if isinstance(part, dict) and {"type": "null"} in part.get("anyOf", ()):
                kept = [choice for choice in part.pop("anyOf") if choice != {"type": "null"}]
                part.update(kept[0] if len(kept) == 1 else {"anyOf": kept}, nullable=True)


Identifier = Annotated[str, Field(min_length=1, max_length=256)]
Category = Annotated[str, Field(min_length=1, max_length=1024)]
EventTime = Annotated[
    AwareDatetime,
    BeforeValidator(_refuse_unix_time),
    AfterValidator(_check_range),
    Field(strict=False),
]


class Message(BaseModel):
    """Closed to unknown fields, strict about types, finite numbers only."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        json_schema_extra=_say_nullable,
    )


class Transaction(Message):
    """One card transaction to be scored; only the first four fields are required."""

    transaction_id: Identifier
    event_time: EventTime = Field(description="When it happened: ISO 8601 with a time zone.")
    customer_id: Identifier
    amount: Annotated[float, Field(ge=0.0, le=MAX_AMOUNT)] = Field(description="Account currency.")
    card_type: Category | None = None
    merchant_id: Identifier | None = None
    merchant_category: Category | None = None
    ip: Identifier | None = None
    device_id: Identifier | None = None
    latitude: Annotated[float, Field(ge=-90.0, le=90.0)] | None = None
    longitude: Annotated[float, Field(ge=-180.0, le=180.0)] | None = None
    extra: dict[Identifier, float | Category | None] = Field(
        default={}, description="Columns of your own that pass through as features, by name."
    )


class PredictRequest(Message):
    """One transaction; ``explain`` asks for the features that moved its score most."""

    transaction: Transaction
    explain: bool = False


class PredictBatchRequest(Message):
    """Several transactions, answered in the same order, each customer's by one model."""

    transactions: Annotated[list[Transaction], FailFast(), Field(min_length=1)]
    explain: bool = False


class Reason(Message):
    """How far one feature moved the score, in the model's own unit (log odds for trees)."""

    feature: str
    contribution: float


class Prediction(Message):
    """A calibrated probability of fraud and what to do about it."""

    transaction_id: str
    score: Annotated[float, Field(ge=0.0, le=1.0)]
    decision: Decision
    model_version: str
    reasons: list[Reason] | None = Field(default=None, description="Only when asked to explain.")
    degraded_reason: str | None = Field(
        default=None, description="Why the score lacks history, if it does."
    )


class PredictBatchResponse(Message):
    """One prediction per transaction, in the order of the request."""

    predictions: list[Prediction]


def shorten(error: ValidationError) -> ValidationError:
    """Keep the first errors only, and none of the input, so that answers stay small and cheap."""
    if error.error_count() > MAX_LISTED_ERRORS:
        return refuse((), f"the message has {error.error_count()} wrong fields")
    kept = error.errors(include_url=False, include_input=False)[:MAX_REPORTED_ERRORS]
    return ValidationError.from_exception_data(
        error.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(item["type"], "{reason}", {"reason": item["msg"]}),
                loc=item["loc"],
                input=None,
            )
            for item in kept
        ],
    )


def refuse(field: tuple[str | int, ...], reason: str) -> ValidationError:
    """Make the error for a field that is well-formed but cannot be used, as BentoML expects it.

    >>> refuse(("transactions",), "has 3 rows; at most 2 are allowed").errors()[0]["loc"]
    ('transactions',)
    """
    kind = PydanticCustomError("value_error", "{reason}", {"reason": reason})
    return ValidationError.from_exception_data(
        "request", [InitErrorDetails(type=kind, loc=field, input=None)]
    )


def check_extra(
    transaction: Transaction, *, field: tuple[str | int, ...], extra: Mapping[str, bool]
) -> None:
    """Refuse an extra column that no feature knows: a misspelt one would silently be missing.

    Args:
        transaction: The message to check.
        field: Where it stands in the request, for the error's path.
        extra: The pass-through columns the features were built from: name -> is it categorical.

    Raises:
        ValidationError: If a column is unknown or holds the wrong type.
    """
    for name, value in transaction.extra.items():
        if name not in extra:
            known = ", ".join(sorted(extra)[:MAX_REPORTED_ERRORS]) or "none"
            raise refuse((*field, "extra", name), f"no column of the training data; known: {known}")
        if value is not None and isinstance(value, str) != extra[name]:
            kind = "string" if extra[name] else "number"
            raise refuse((*field, "extra", name), f"Input should be a valid {kind}")
