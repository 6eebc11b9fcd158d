"""Rows that break a rule are set aside with their reasons, or, when they are many, stop the run.

A table of failures (``row``, ``column``, ``reason``; one line per broken rule and row) is what the
contract hands over. Invariant: a refused row is set aside once, as it came.
"""

from __future__ import annotations

import pandas as pd

QUARANTINE_COLUMNS = ("source", "row", "reason")
NUM_EXAMPLES = 3
MAX_EXAMPLE_LENGTH = 60


def check_share(source: pd.DataFrame, *, failures: pd.DataFrame, rows: str, allowed: float) -> None:
    """Stop when more than the allowed share of the rows break a rule.

    Args:
        source: The rows as they came.
        failures: ``row`` (position in ``source``), ``column`` and ``reason`` of each broken rule.
        rows: What a row is called, in the plural.
        allowed: The share that may break a rule, in [0, 1].

    Raises:
        ValueError: In one line: which rules, on how many rows, with examples.
    """
    num_bad = failures["row"].nunique()
    if num_bad <= allowed * len(source):
        return
    rules = [
        f"{reason} on {len(cases)} row{'s' * (len(cases) > 1)} ({_show_examples(source, cases)})"
        for reason, cases in failures.groupby("reason")
    ]
    raise ValueError(
        f"{num_bad} of {len(source)} {rows} ({num_bad / len(source):.2%}) break the contract and "
        f"data.max_quarantine_share allows {allowed:.2%}: {'; '.join(rules)}. "
        "Correct the file or its mapping, or allow a larger share"
    )


def _show_examples(source: pd.DataFrame, cases: pd.DataFrame) -> str:
    """Show the first rows that break one rule, by id and value."""
    shown = []
    for row, column in cases[["row", "column"]].head(NUM_EXAMPLES).itertuples(index=False):
        identity = source["transaction_id"].iloc[row]
        name = f"row {row + 1}" if pd.isna(identity) else f"{identity}"
        is_told = column in source and column != "transaction_id"
        value = " ".join(str(source[column].iloc[row]).split()) if is_told else ""
        shown.append(f"{name}: {value[:MAX_EXAMPLE_LENGTH]}" if is_told else name)
    more = ", ..." if len(cases) > NUM_EXAMPLES else ""
    return ", ".join(shown) + more


def set_aside(source: pd.DataFrame, *, failures: pd.DataFrame, rows: str) -> pd.DataFrame:
    """Set the refused rows aside as they came, as text, each with its reasons.

    Returns:
        ``source`` (what ``rows`` says), ``row`` (from 1), ``reason``, then the row's own columns; a
        column of the user's with one of these three names gets " (input)" behind it.
    """
    reasons = failures.groupby("row")["reason"].agg("; ".join)
    refused = source.iloc[reasons.index].reset_index(drop=True).astype("string")
    refused = refused.rename(columns={name: f"{name} (input)" for name in QUARANTINE_COLUMNS})
    why = pd.DataFrame({"source": rows, "row": reasons.index + 1, "reason": reasons.to_numpy()})
    return pd.concat([why.astype({"source": "string", "reason": "string"}), refused], axis=1)


def join_quarantines(transactions: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Put both quarantines into one table; what only one of them has is missing in the other."""
    columns = list(dict.fromkeys([*transactions.columns, *labels.columns]))
    kinds = {name: "int64" if name == "row" else "string" for name in columns}
    parts = [part.reindex(columns=columns).astype(kinds) for part in (transactions, labels)]
    return pd.concat(parts, ignore_index=True)
