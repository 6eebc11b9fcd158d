"""Raw transactions and labels become checked ones, and a quarantine that says why the rest is not.

The contract is two pandera schemas. Columns are first brought to their types (text, float64, UTC
microseconds; see ``data.column_types``), then every rule is asked of every row at once. Invariant:
no row vanishes; each input row is in the result or in the quarantine, once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pandera.pandas as pa

from data.column_types import (
    Flags,
    convert_extra,
    convert_to_flags,
    convert_to_numbers,
    convert_to_text,
    convert_to_times,
)
from data.fraud_columns import EARLIEST_TIME, LATEST_TIME, MAX_AMOUNT, TRANSACTION_COLUMNS
from data.quarantine import check_share, join_quarantines, set_aside

REQUIRED_COLUMNS = ("transaction_id", "event_time", "customer_id", "amount")
NUMBER_COLUMNS = ("amount", "latitude", "longitude")
REQUIRED_LABEL_COLUMNS = ("transaction_id", "is_fraud", "label_time")
LABEL_COLUMNS = (*REQUIRED_LABEL_COLUMNS, "fraud_pattern")


@dataclass(frozen=True)
class CheckedTransactions:
    """What the contract let in, and what it did not.

    Attributes:
        transactions: Sorted by ``event_time``, then ``transaction_id``; the contract's columns in
            the contract's order, then extra ones (float64 or text).
        labels: In the same order; ``is_fraud`` is a bool.
        quarantine: One row per refused row: ``source`` (``transactions`` or ``labels``), ``row``
            (its place in the input, from 1), ``reason``, then the row's own columns as text.
    """

    transactions: pd.DataFrame
    labels: pd.DataFrame
    quarantine: pd.DataFrame


def check_transactions(
    transactions: pd.DataFrame, labels: pd.DataFrame, *, max_quarantine_share: float
) -> CheckedTransactions:
    """Hold transactions and labels against the contract.

    Of rows with the same ``transaction_id`` the first counts. A label goes into quarantine with its
    transaction; a transaction stays without its label.

    Args:
        transactions: The required columns, any of the optional ones, and extra ones. Times must
            have a time zone. Not modified.
        labels: ``transaction_id``, ``is_fraud`` (true or false, 0 or 1), ``label_time``, and
            ``fraud_pattern`` if there is one. Not modified.
        max_quarantine_share: The share of the transactions, and of the labels, that may be refused.

    Returns:
        The rows that keep every rule, and a quarantine of those that do not.

    Raises:
        ValueError: If a column is missing or of the wrong kind, if there are no rows, or if more
            than ``max_quarantine_share`` of them break a rule: then it says which rule, on how many
            rows, with examples.
    """
    _check_columns(
        transactions, rows="transactions", required=REQUIRED_COLUMNS, refused=LABEL_COLUMNS[1:]
    )
    unknown = [name for name in labels.columns if name not in LABEL_COLUMNS]
    _check_columns(labels, rows="labels", required=REQUIRED_LABEL_COLUMNS, refused=unknown)
    typed = _type_transactions(transactions)
    failures = _find_failures(typed, schema=_build_transaction_schema(typed))
    check_share(transactions, failures=failures, rows="transactions", allowed=max_quarantine_share)
    is_kept = ~typed.index.isin(failures["row"])

    typed_labels = _type_labels(labels, transactions=typed, is_kept=is_kept)
    label_failures = _find_failures(typed_labels, schema=LABEL_SCHEMA)
    check_share(labels, failures=label_failures, rows="labels", allowed=max_quarantine_share)
    is_kept_label = ~typed_labels.index.isin(label_failures["row"])
    kept_labels = _sort(typed_labels if is_kept_label.all() else typed_labels[is_kept_label])
    return CheckedTransactions(
        transactions=_sort(typed if is_kept.all() else typed[is_kept]),
        labels=kept_labels[[name for name in LABEL_COLUMNS if name in labels]].astype(
            {"is_fraud": bool}
        ),
        quarantine=join_quarantines(
            set_aside(transactions, failures=failures, rows="transactions"),
            set_aside(labels, failures=label_failures, rows="labels"),
        ),
    )


def find_extra_columns(transactions: pd.DataFrame) -> list[str]:
    """Name the columns that are the user's own, in order.

    >>> find_extra_columns(pd.DataFrame(columns=["transaction_id", "amount", "V1"]))
    ['V1']
    """
    return [name for name in transactions.columns if name not in TRANSACTION_COLUMNS]


def _check_columns(
    frame: pd.DataFrame, *, rows: str, required: Sequence[str], refused: Sequence[str]
) -> None:
    """Refuse a frame without rows or without a required column, or with one it may not have."""
    columns = list(frame.columns)
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(f"the {rows} have no column {', '.join(missing)}; they have: {columns}")
    unwanted = [name for name in columns if name in refused]
    if unwanted:
        raise ValueError(f"the {rows} may not have column {', '.join(unwanted)}; remove it")
    twice = sorted({str(name) for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"the {rows} have columns of the same name: {', '.join(twice)}")
    if frame.empty:
        raise ValueError(f"there are no {rows}: the file or frame has columns but no rows")


def _type_transactions(transactions: pd.DataFrame) -> pd.DataFrame:
    """Bring every column to its type, the contract's first."""
    columns = {}
    for name in (name for name in TRANSACTION_COLUMNS if name in transactions):
        values = transactions[name].reset_index(drop=True)
        if name == "event_time":
            columns[name] = convert_to_times(values)
        elif name in NUMBER_COLUMNS:
            columns[name] = convert_to_numbers(values)
        else:
            columns[name] = convert_to_text(values)
    for name in find_extra_columns(transactions):
        columns[name] = convert_extra(transactions[name].reset_index(drop=True))
    return pd.DataFrame(columns)


def _type_labels(
    labels: pd.DataFrame, *, transactions: pd.DataFrame, is_kept: Flags
) -> pd.DataFrame:
    """Bring labels to their types and set beside each what its transaction's rules need."""
    labels = labels.reset_index(drop=True)
    ids = convert_to_text(labels["transaction_id"])
    kept = transactions.loc[is_kept, ["transaction_id", "event_time"]]
    position = pd.Index(kept["transaction_id"]).get_indexer(pd.Index(ids))
    is_accepted = position >= 0
    is_known = is_accepted.copy()
    is_known[~is_accepted] = ids[~is_accepted].isin(transactions["transaction_id"].dropna())
    event_time = kept["event_time"].array.take(position, allow_fill=True)
    label_time = convert_to_times(labels["label_time"])
    typed = pd.DataFrame(
        {
            "transaction_id": ids,
            "is_fraud": convert_to_flags(labels["is_fraud"]),
            "label_time": label_time,
            "event_time": event_time,
            "is_known": is_known | ids.isna(),
            "is_accepted": is_accepted | ~is_known,
            "is_after_event": ~(label_time < event_time),
        }
    )
    if "fraud_pattern" in labels:
        typed["fraud_pattern"] = labels["fraud_pattern"].astype(object).fillna("").astype(str)
    return typed


def _build_transaction_schema(transactions: pd.DataFrame) -> pa.DataFrameSchema:
    """State the rules for the columns there are."""
    columns = {name: pa.Column(nullable=True) for name in transactions}
    for name in ("latitude", "longitude"):
        limit = 90.0 if name == "latitude" else 180.0
        rule = pa.Check.in_range(-limit, limit, error=f"{name} is not in [-{limit:g}, {limit:g}]")
        columns[name] = pa.Column("float64", rule, nullable=True, required=False)
    for name in find_extra_columns(transactions):
        if transactions[name].dtype == "float64":
            rule = pa.Check(_is_not_infinite, error=f"{name} is infinite")
            columns[name] = pa.Column("float64", rule, nullable=True)
    columns["transaction_id"] = pa.Column(object, unique=True, report_duplicates="exclude_first")
    columns["customer_id"] = pa.Column(object)
    columns["event_time"] = pa.Column(
        pd.DatetimeTZDtype("us", "UTC"),
        pa.Check.in_range(EARLIEST_TIME, LATEST_TIME, error="event_time is not in 1970 to 2100"),
    )
    columns["amount"] = pa.Column(
        "float64",
        [
            pa.Check.ge(0.0, error="amount is negative"),
            pa.Check.le(MAX_AMOUNT, error=f"amount is not a finite number up to {MAX_AMOUNT:g}"),
        ],
    )
    return pa.DataFrameSchema(columns)


def _is_not_infinite(values: pd.Series) -> pd.Series:
    """Pass numbers and what is missing."""
    is_not: pd.Series = ~np.isinf(values)
    return is_not


def _state(rule: str) -> pa.Column:
    """Require a column of flags to be true, under the name of what it means when it is not."""
    return pa.Column(bool, pa.Check(lambda flags: flags, error=rule))


LABEL_SCHEMA = pa.DataFrameSchema(
    {
        "transaction_id": pa.Column(object, unique=True, report_duplicates="exclude_first"),
        "is_fraud": pa.Column("float64", pa.Check.isin([0.0, 1.0], error="is_fraud is not 0 or 1")),
        "label_time": pa.Column(pd.DatetimeTZDtype("us", "UTC")),
        "is_known": _state("no transaction has this transaction_id"),
        "is_accepted": _state("its transaction is in quarantine"),
        "is_after_event": _state("label_time is before event_time"),
    }
)
BUILT_IN_RULES = {"not_nullable": "is missing or unreadable", "field_uniqueness": "is not unique"}


def _find_failures(typed: pd.DataFrame, *, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Ask every rule of every row.

    Returns:
        One row per broken rule and row: ``row`` (position in ``typed``), ``column``, ``reason``.
    """
    try:
        with warnings.catch_warnings():
            # pandera joins its own tables of failures in a way pandas 2 warns about.
            warnings.filterwarnings("ignore", "The behavior of DataFrame concat", FutureWarning)
            schema.validate(typed, lazy=True, inplace=True)  # no copy: no rule changes a value
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        assert cases["index"].notna().all(), f"the contract broke off its types: {cases}"
        built_in = cases["column"] + " " + cases["check"].map(BUILT_IN_RULES)
        reasons = built_in.where(cases["check"].isin(BUILT_IN_RULES), cases["check"])
        return pd.DataFrame(
            {"row": cases["index"].astype("int64"), "column": cases["column"], "reason": reasons}
        ).sort_values(["row", "column"], kind="stable", ignore_index=True)
    return pd.DataFrame({"row": np.empty(0, np.int64), "column": "", "reason": ""})


def _sort(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by time, then id."""
    time = rows["event_time"]
    if time.is_monotonic_increasing and time.is_unique:
        return rows.reset_index(drop=True)
    return rows.sort_values(["event_time", "transaction_id"], ignore_index=True)
