"""The handbook's transactions become further inputs, from what was known at the same time.

Strictly past: an amount counts once its transaction lies before ``t``, a label once it is seven
days old. They ask what its three scenarios leave behind:

- is the amount out of proportion to what this customer usually pays (scenarios 1 and 3), and were
  there other such amounts in the last days?
- do the terminal's latest known labels end in a run of frauds (scenario 2), how long ago did it
  begin, and are there frauds of an *ordinary* amount in it, which only the terminal can explain?
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from data.handbook import MAX_HONEST_AMOUNT
from features.handbook import LABEL_DELAY_DAYS, EntityRows, group_entity
from features.past_values import find_past_quantiles, trace_fraud_runs
from features.windows import (
    Floats,
    Integers,
    count_windows,
    measure_seconds_since_last,
    slide_moments,
    sum_windows,
)

HIGH_RATIO = 2.5
"""An amount this many times the customer's median is suspicious."""
EVER_DAYS = 10_000
QUANTILES = {"median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


def build_handbook_signals(transactions: pd.DataFrame) -> pd.DataFrame:
    """Compute what the 15 handbook inputs leave unsaid, for every transaction.

    Args:
        transactions: As in ``data.handbook.HandbookWorld``.

    Returns:
        Columns of floats, one row per transaction in the same order; NaN where there is no past.
    """
    columns = _trace_customer_amounts(transactions)
    is_high = columns["amount_to_customer_median"] > HIGH_RATIO
    is_plain = ~is_high & (transactions["amount"].to_numpy() <= MAX_HONEST_AMOUNT)
    columns |= _trace_known_frauds_of_customers(transactions)
    columns |= _trace_terminals(transactions, is_plain=is_plain)
    return pd.DataFrame(columns, index=transactions.index)


def _trace_customer_amounts(transactions: pd.DataFrame) -> dict[str, Floats]:
    """Compare each amount with the customer's earlier ones."""
    customers = group_entity(transactions, "customer_id")
    amounts = customers.group(transactions["amount"])
    past = customers.find_past(days=EVER_DAYS)
    usual = find_past_quantiles(
        amounts, customers.grouping.starts, past.high, shares=tuple(QUANTILES.values())
    )
    ratios = amounts[:, None] / np.maximum(usual, 1.0)
    columns = dict(zip((f"amount_to_customer_{name}" for name in QUANTILES), ratios.T, strict=True))
    median_ratio = np.nan_to_num(ratios[:, 0], nan=1.0)
    is_high = (median_ratio > HIGH_RATIO).astype(np.int64)
    week = customers.find_past(days=7)
    columns |= {
        "customer_tx_count_ever": count_windows(past),
        "customer_high_amounts_3d": sum_windows(is_high, customers.find_past(days=3)),
        "customer_high_amounts_7d": sum_windows(is_high, week),
        "customer_high_amounts_14d": sum_windows(is_high, customers.find_past(days=14)),
        "customer_amount_ratio_max_7d": slide_moments(median_ratio, week).max,
        "customer_seconds_since_previous": measure_seconds_since_last(
            customers.times, customers.times, past
        ),
    }
    return {name: customers.scatter(values) for name, values in columns.items()}


def _trace_known_frauds_of_customers(transactions: pd.DataFrame) -> dict[str, Floats]:
    """Count the frauds on each card whose label was known."""
    customers = group_entity(transactions, "customer_id")
    is_fraud = customers.group(transactions["is_fraud"]).astype(np.int64)
    return {
        f"customer_known_frauds_{name}": customers.scatter(
            sum_windows(is_fraud, customers.find_bounds(days=days, delay_days=LABEL_DELAY_DAYS))
        )
        for name, days in {"7d": 7, "14d": 14, "ever": EVER_DAYS}.items()
    }


def _trace_terminals(
    transactions: pd.DataFrame, *, is_plain: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> dict[str, Floats]:
    """Follow the known frauds of each terminal; ``is_plain`` marks ordinary amounts."""
    terminals = group_entity(transactions, "terminal_id")
    is_fraud = terminals.group(transactions["is_fraud"]).astype(np.int64)
    is_plain_fraud = is_fraud * terminals.group(pd.Series(is_plain)).astype(np.int64)
    columns = _trace_runs(terminals, is_fraud, is_plain_fraud)
    for days in (3, 14, 21, 28, 60):
        window = terminals.find_bounds(days=days, delay_days=LABEL_DELAY_DAYS)
        share = sum_windows(is_fraud, window) / np.maximum(count_windows(window), 1.0)
        columns[f"terminal_risk_{days}d"] = share
        columns[f"terminal_plain_frauds_{days}d"] = sum_windows(is_plain_fraud, window)
    return {name: terminals.scatter(values) for name, values in columns.items()}


def _trace_runs(
    terminals: EntityRows, is_fraud: Integers, is_plain_fraud: Integers
) -> dict[str, Floats]:
    """Describe the run of frauds each terminal's known labels end with.

    A plain run counts its plain frauds only; a legitimate transaction ends it, an extreme fraud
    does not.
    """
    known = terminals.find_bounds(days=EVER_DAYS, delay_days=LABEL_DELAY_DAYS).high
    starts = terminals.grouping.starts
    run = trace_fraud_runs(terminals.times, is_fraud, starts, known)
    plain = trace_fraud_runs(
        terminals.times, np.where(is_fraud == 1, 2 * is_plain_fraud - 1, 0), starts, known
    )
    return {
        "terminal_run_length": run.length,
        "terminal_run_days": run.days_since_start,
        "terminal_plain_run_length": plain.length,
        "terminal_plain_run_days": plain.days_since_start,
        "terminal_legitimate_days": plain.days_since_legitimate,
    }
