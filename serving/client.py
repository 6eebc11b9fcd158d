"""Rows of transactions become requests of the fraud service, and its answers rows again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pandas as pd

from data.fraud_columns import TRANSACTION_COLUMNS

PROMOTION_TIMEOUT_SECONDS = 30.0
ANSWER_COLUMNS = ("transaction_id", "score", "decision", "model_version", "degraded_reason")


def build_messages(transactions: pd.DataFrame) -> list[dict[str, Any]]:
    """Make one JSON object per transaction, as the fraud service takes it.

    Args:
        transactions: Columns of the contract; any further column goes to ``extra``.

    Returns:
        One object per row, in order; missing values are left out.

    >>> rows = pd.DataFrame({"transaction_id": ["t1"], "amount": [9.5], "V1": [0.25]})
    >>> build_messages(rows)
    [{'transaction_id': 't1', 'amount': 9.5, 'extra': {'V1': 0.25}}]
    """
    columns = {name: _to_json_values(transactions[name]) for name in transactions.columns}
    messages = []
    for row in range(len(transactions)):
        present = {name: column[row] for name, column in columns.items() if column[row] is not None}
        message = {name: present.pop(name) for name in TRANSACTION_COLUMNS if name in present}
        messages.append({**message, "extra": present} if present else message)
    return messages


def _to_json_values(column: pd.Series[Any]) -> list[Any]:
    """Make times ISO 8601 text and missing values None."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return [None if pd.isna(value) else value.isoformat() for value in column]
    return column.astype(object).where(column.notna(), None).tolist()


def replay_transactions(
    url: str,
    slices: Iterable[pd.DataFrame],
    *,
    before_slice: Callable[[pd.DataFrame], None] | None = None,
    batch_rows: int = 500,
    timeout_seconds: float = 30.0,
) -> pd.DataFrame:
    """Score transactions over HTTP slice by slice, in time order, one request at a time.

    Args:
        url: The service's address.
        slices: Transactions; typically each slice holds the next stretch of time.
        before_slice: Called with each slice before it is sent, to make known what happened before.
        batch_rows: Largest number of rows in a request; the service has a limit of its own.
        timeout_seconds: How long one request may take.

    Returns:
        ``transaction_id, score, decision, model_version, degraded_reason``, one row per
        transaction in the order sent; no row if there was none.

    Raises:
        ValueError: If the service cannot be reached, refuses a request, or answers another order.
    """
    answers: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=timeout_seconds, trust_env=False) as client:
        for transactions in slices:
            if before_slice is not None:
                before_slice(transactions)
            messages = build_messages(transactions)
            for start in range(0, len(messages), batch_rows):
                answers += _predict_batch(client, messages[start : start + batch_rows])
    return pd.DataFrame(answers, columns=list(ANSWER_COLUMNS))


def _predict_batch(client: httpx.Client, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        response = client.post("/predict_batch", json={"transactions": messages})
    except httpx.TransportError as error:
        raise ValueError(f"the service at {client.base_url} cannot be reached: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise ValueError(
            f"the service at {client.base_url} answered {response.status_code}: "
            f"{response.text[:500]}"
        )
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    sent = [message["transaction_id"] for message in messages]
    if [prediction["transaction_id"] for prediction in predictions] != sent:
        raise ValueError(f"the service at {client.base_url} answered other transactions than sent")
    return predictions


def wait_for_version(url: str, wanted: str) -> dict[str, Any]:
    """Wait until the running service answers with a version; say how long that took.

    Raises:
        ValueError: If it does not within ``PROMOTION_TIMEOUT_SECONDS``.
    """
    started = time.perf_counter()
    while time.perf_counter() - started < PROMOTION_TIMEOUT_SECONDS:
        answer = httpx.get(f"{url}/model", timeout=5.0, trust_env=False).json()
        if answer["model_version"] == wanted:
            return {"version": wanted, "seconds": round(time.perf_counter() - started, 2)}
        time.sleep(0.1)
    raise ValueError(
        f"the service at {url} still answers with version {answer['model_version']}, not {wanted};"
        f" it refused: {answer['refused']}"
    )
