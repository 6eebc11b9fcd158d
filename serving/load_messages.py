"""Real past transactions become a load's request bodies, and its answers are held against rules.

Drawing from the past keeps the world's own skew: customers who buy often are asked about often.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, get_args

import httpx
import msgspec
import numpy as np
import pandas as pd

from serving.client import build_messages
from serving.load_http import SERIAL_FIELD
from serving.prediction_log import LOAD_TEST_PREFIX, Decision

EXPECT_BATCH_ROWS = 100
MAX_DIFFERENCE = 1e-9
WRAPPED_PATHS = ("/predict",)
"""Where a transaction is one field of the body, not the body itself."""


def draw_messages(
    transactions: pd.DataFrame, *, num_messages: int, seed: int, now: pd.Timestamp | None = None
) -> list[dict[str, Any]]:
    """Invent requests: random past transactions, made again in the next hour.

    Args:
        transactions: In the contract's columns.
        num_messages: How many.
        seed: Of the draw.
        now: The instant the hour follows and the past precedes, UTC; by default just after the
            last transaction.

    Returns:
        Messages for ``/predict``. Their ids begin with ``LOAD_TEST_PREFIX``, so that monitoring
        does not take them for customers' transactions.

    Raises:
        ValueError: If there is no transaction before ``now``.
    """
    if now is None:
        now = transactions["event_time"].max() + pd.Timedelta(microseconds=1)
    past = transactions[transactions["event_time"] < now]
    if past.empty:
        raise ValueError(f"there is no transaction before {now} to make a load test of")
    generator = np.random.default_rng(seed)
    drawn = past.iloc[generator.integers(len(past), size=num_messages)].reset_index(drop=True)
    moments = np.sort(generator.integers(3600 * 10**6, size=num_messages))
    drawn["event_time"] = now + pd.to_timedelta(moments, unit="us")
    prefix = make_id_prefix()
    drawn["transaction_id"] = [f"{prefix}{number}" for number in range(num_messages)]
    return build_messages(drawn)


def make_id_prefix() -> str:
    """Make what the transaction ids of one run begin with, unlike any other run's."""
    return f"{LOAD_TEST_PREFIX}{time.time_ns()}-"


def render_bodies(
    messages: Sequence[Mapping[str, Any]], *, path: str, id_prefix: str
) -> list[bytes]:
    """Render messages as request bodies, each with room for a number in its transaction id.

    Args:
        messages: Of ``draw_messages``.
        path: Where they go; ``/predict`` takes a transaction as one field, others as the body.
        id_prefix: What the ids begin with.
    """
    identified = [
        {**message, "transaction_id": id_prefix + SERIAL_FIELD.decode()} for message in messages
    ]
    is_wrapped = path in WRAPPED_PATHS
    return [
        msgspec.json.encode({"transaction": message} if is_wrapped else message)
        for message in identified
    ]


class Expected(NamedTuple):
    """What the typed lane answered to a message."""

    score: float
    decision: str
    model_version: str


def ask_expected(url: str, messages: Sequence[Mapping[str, Any]]) -> list[Expected]:
    """Ask ``/predict_batch`` what it says to the messages.

    Raises:
        ValueError: If it does not answer them all.
    """
    expected = []
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        for start in range(0, len(messages), EXPECT_BATCH_ROWS):
            batch = list(messages[start : start + EXPECT_BATCH_ROWS])
            response = client.post("/predict_batch", json={"transactions": batch})
            if response.status_code != httpx.codes.OK:
                raise ValueError(
                    f"{url}/predict_batch answered {response.status_code} to what is expected: "
                    f"{response.text[:200]}"
                )
            expected += [
                Expected(answer["score"], answer["decision"], answer["model_version"])
                for answer in response.json()["predictions"]
            ]
    return expected


class FraudAnswer(msgspec.Struct):
    """The fields every answer must have, with their ranges."""

    transaction_id: str
    score: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
    decision: Decision
    model_version: str
    degraded_reason: str | None


class FraudCheck:
    """Judges the fraud service's answers (see ``load_plan.Check``).

    Attributes:
        tallies: ``model_version`` and ``degraded_reason``, by value; ``expected``: how many were
            ``compared`` with what the typed lane had answered.
    """

    def __init__(self, *, id_prefix: str, expected: Sequence[Expected] = ()) -> None:
        self.tallies: dict[str, Counter[str]] = {
            "model_version": Counter(),
            "degraded_reason": Counter(),
            "expected": Counter(),
        }
        self._id_prefix = id_prefix
        self._expected = expected
        self._decode = msgspec.json.Decoder(FraudAnswer).decode

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what it was made of: a decoder cannot be."""
        return partial(FraudCheck, id_prefix=self._id_prefix, expected=self._expected), ()

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:
        """Say what is wrong with an answer of status 200, or None."""
        transaction_id = self._id_prefix + serial.decode()
        try:
            answer = self._decode(body)
        except msgspec.DecodeError:
            return check_answer(200, body, transaction_id) or "missing field"
        if answer.transaction_id != transaction_id:
            return "wrong transaction id"
        self.tallies["model_version"][answer.model_version] += 1
        if answer.degraded_reason is not None:
            self.tallies["degraded_reason"][answer.degraded_reason] += 1
        elif row < len(self._expected):
            return self._compare(answer, self._expected[row])
        return None

    def _compare(self, answer: FraudAnswer, expected: Expected) -> str | None:
        """Hold an answer against the typed lane's, unless another model has been promoted since."""
        if answer.model_version != expected.model_version:
            return None
        self.tallies["expected"]["compared"] += 1
        is_same = abs(answer.score - expected.score) <= MAX_DIFFERENCE
        return None if is_same and answer.decision == expected.decision else "other than expected"


def check_answer(status: int, body: bytes, transaction_id: str) -> str | None:
    """Say what is wrong with an answer, or None.

    >>> check_answer(503, b"", "t1")
    'status 503'
    """
    if status != httpx.codes.OK:
        return f"status {status}"
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return "no JSON object"
    score = answer.get("score")
    if answer.get("transaction_id") != transaction_id:
        return "wrong transaction id"
    if not isinstance(score, float | int) or not 0.0 <= score <= 1.0:
        return "score outside [0, 1]"
    if answer.get("decision") not in get_args(Decision):
        return "unknown decision"
    if not isinstance(answer.get("model_version"), str) or "degraded_reason" not in answer:
        return "missing field"
    return None
