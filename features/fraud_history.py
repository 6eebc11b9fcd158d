"""Transactions and matured labels become one table of window values per entity, for every instant.

Each table has a row per entity and transaction, holding what was known strictly before it; Feast
joins them back point in time. The arithmetic is ``features.fraud``'s, the same as at request time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.fraud_windows import (
    Grouped,
    aggregate_customer_devices,
    aggregate_customer_merchants,
    aggregate_customer_places,
    aggregate_customer_spend,
    aggregate_ip_customers,
    aggregate_label_days,
    aggregate_merchant_amounts,
)
from features.windows import DAY, Integers, group_rows


@dataclass(frozen=True)
class _Coded:
    """A column of ids as codes: ``names[code]`` is the id, -1 stands for a missing one."""

    codes: Integers
    names: pd.Index


@dataclass(frozen=True)
class _Plan:
    """Which rows are events and which are queries, each in grouped order."""

    groups: Grouped
    events: Integers
    queries: Integers


def to_microseconds(times: pd.Series) -> Integers:
    """Turn UTC timestamps into integers of microseconds since 1970.

    >>> to_microseconds(pd.Series(pd.to_datetime(["1970-01-01T00:00:01Z"]))).tolist()
    [1000000]
    """
    return np.asarray(times.dt.as_unit("us").astype("int64"))


def to_times(microseconds: Integers) -> pd.DatetimeIndex:
    """Turn microseconds since 1970 into UTC timestamps; the inverse of ``to_microseconds``."""
    return pd.DatetimeIndex(microseconds.astype("datetime64[us]")).tz_localize("UTC")


def compute_history(transactions: pd.DataFrame, labels: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compute every window value at every transaction.

    Args:
        transactions: In the contract's columns; optional ones may be missing.
        labels: ``transaction_id, is_fraud, label_time``; a label counts from its ``label_time`` on.

    Returns:
        Tables by name, each with its entity's key columns, ``event_time`` and window values. A
        table whose columns the transactions lack is left out.
    """
    times = to_microseconds(transactions["event_time"])
    amounts = transactions["amount"].to_numpy(np.float64)
    customers = _code(transactions["customer_id"])
    tables = {"customer_windows": _customer_table(transactions, customers, times)}
    if "device_id" in transactions:
        tables["customer_device_windows"] = _device_table(transactions, customers, times)
    if "ip" in transactions:
        tables["ip_windows"] = _ip_table(transactions, customers, times)
    if "merchant_id" in transactions:
        merchants = _code(transactions["merchant_id"])
        tables["customer_merchant_windows"] = _pair_table(transactions, customers, merchants, times)
        plan = _make_plan(merchants, times)
        values = aggregate_merchant_amounts(plan.groups, amounts[plan.events])
        label_days = count_label_days(transactions, labels, "merchant_id")
        values["merchant_fraud_rate"] = _fraud_rate(merchants, times, label_days)
        tables["merchant_windows"] = _make_table(transactions, plan, ["merchant_id"], values)
    if "merchant_category" in transactions:
        tables["category_windows"] = _category_table(transactions, labels, times)
    return tables


def count_label_days(transactions: pd.DataFrame, labels: pd.DataFrame, entity: str) -> pd.DataFrame:
    """Count the labels that arrived for each entity on each UTC day.

    Args:
        transactions: Holding ``transaction_id`` and the ``entity`` column.
        labels: ``transaction_id, is_fraud, label_time``.
        entity: The column to group by, as ``merchant_id``.

    Returns:
        ``entity, day_time_us`` (first microsecond of the day), ``num_labels``, ``num_frauds``,
        sorted by entity and day.
    """
    owner = transactions.set_index("transaction_id")[entity]
    arrived = pd.DataFrame(
        {
            entity: owner.reindex(labels["transaction_id"]).to_numpy(),
            "day_time_us": to_microseconds(labels["label_time"]) // DAY * DAY,
            "num_frauds": labels["is_fraud"].to_numpy(np.int64),
        }
    )
    days = arrived.groupby([entity, "day_time_us"])["num_frauds"].agg(["size", "sum"])
    return days.rename(columns={"size": "num_labels", "sum": "num_frauds"}).reset_index()


def _code(ids: pd.Series) -> _Coded:
    codes, names = pd.factorize(ids)
    return _Coded(codes.astype(np.int64), pd.Index(names))


def _make_plan(entities: _Coded, times: Integers, *, is_event: np.ndarray | None = None) -> _Plan:
    """Group all rows that have the entity as queries, and those marked as events."""
    queries = np.flatnonzero(entities.codes >= 0)
    events = queries if is_event is None else queries[is_event[queries]]
    num = len(entities.names)
    by_query = group_rows(entities.codes[queries], times[queries], num_entities=num)
    by_event = (
        by_query
        if is_event is None
        else group_rows(entities.codes[events], times[events], num_entities=num)
    )
    queries, events = queries[by_query.order], events[by_event.order]
    groups = Grouped(times[events], by_event.starts, times[queries], by_query.starts)
    return _Plan(groups, events, queries)


def _make_table(
    transactions: pd.DataFrame,
    plan: _Plan,
    keys: list[str],
    values: dict[str, np.ndarray],
) -> pd.DataFrame:
    """Put the values beside their keys and times, in grouped order."""
    rows = transactions[[*keys, "event_time"]].iloc[plan.queries].reset_index(drop=True)
    return rows.assign(**values)


def _customer_table(transactions: pd.DataFrame, customers: _Coded, times: Integers) -> pd.DataFrame:
    plan = _make_plan(customers, times)
    amounts = transactions["amount"].to_numpy(np.float64)
    values = aggregate_customer_spend(plan.groups, amounts[plan.events])
    if "merchant_id" in transactions:
        merchants = _code(transactions["merchant_id"])
        counts = _aggregate_merchants(customers, merchants, times)
        values |= {name: counts[name] for name in counts if name.startswith("customer_unique")}
    if {"latitude", "longitude"} <= set(transactions.columns):
        places = transactions[["latitude", "longitude"]].to_numpy(np.float64)
        seen = _make_plan(customers, times, is_event=~np.isnan(places).any(axis=1))
        values |= aggregate_customer_places(seen.groups, *places[seen.events].T.copy())
    return _make_table(transactions, plan, ["customer_id"], values)


def _aggregate_merchants(
    customers: _Coded, merchants: _Coded, times: Integers
) -> dict[str, np.ndarray]:
    plan = _make_plan(customers, times, is_event=merchants.codes >= 0)
    return aggregate_customer_merchants(
        plan.groups,
        merchants.codes[plan.events],
        merchants.codes[plan.queries],
        num_codes=len(merchants.names),
    )


def _pair_table(
    transactions: pd.DataFrame, customers: _Coded, merchants: _Coded, times: Integers
) -> pd.DataFrame:
    plan = _make_plan(customers, times)
    counts = _aggregate_merchants(customers, merchants, times)
    column = "customer_merchant_tx_count_30d"
    table = _make_table(
        transactions, plan, ["customer_id", "merchant_id"], {column: counts[column]}
    )
    return table.dropna(subset="merchant_id", ignore_index=True)


def _device_table(transactions: pd.DataFrame, customers: _Coded, times: Integers) -> pd.DataFrame:
    devices = _code(transactions["device_id"])
    plan = _make_plan(customers, times, is_event=devices.codes >= 0)
    counts = aggregate_customer_devices(
        plan.groups,
        devices.codes[plan.events],
        devices.codes[plan.queries],
        num_codes=len(devices.names),
    )
    table = _make_table(transactions, plan, ["customer_id", "device_id"], counts)
    return table.dropna(subset="device_id", ignore_index=True)


def _ip_table(transactions: pd.DataFrame, customers: _Coded, times: Integers) -> pd.DataFrame:
    plan = _make_plan(_code(transactions["ip"]), times)
    counts = aggregate_ip_customers(
        plan.groups, customers.codes[plan.events], num_codes=len(customers.names)
    )
    return _make_table(transactions, plan, ["ip"], counts)


def _category_table(
    transactions: pd.DataFrame, labels: pd.DataFrame, times: Integers
) -> pd.DataFrame:
    """One row per category and day it was used: the risk does not change within a day."""
    used = pd.DataFrame(
        {"merchant_category": transactions["merchant_category"], "day": times // DAY * DAY}
    )
    used = used.dropna().drop_duplicates(ignore_index=True)
    categories, days = _code(used["merchant_category"]), used["day"].to_numpy()
    order = _make_plan(categories, days).queries
    label_days = count_label_days(transactions, labels, "merchant_category")
    return pd.DataFrame(
        {
            "merchant_category": used["merchant_category"].to_numpy()[order],
            "event_time": to_times(days[order]),
            "merchant_category_risk": _fraud_rate(categories, days, label_days),
        }
    )


def _fraud_rate(entities: _Coded, times: Integers, label_days: pd.DataFrame) -> np.ndarray:
    """Estimate each query's fraud rate, in grouped order of the queries."""
    queries = _make_plan(entities, times)
    owners = entities.names.get_indexer(pd.Index(label_days.iloc[:, 0])).astype(np.int64)
    days = label_days["day_time_us"].to_numpy()
    by_day = group_rows(owners, days, num_entities=len(entities.names))
    groups = Grouped(
        days[by_day.order],
        by_day.starts,
        queries.groups.query_times,
        queries.groups.query_starts,
    )
    return aggregate_label_days(
        groups,
        label_days["num_labels"].to_numpy(np.int64)[by_day.order],
        label_days["num_frauds"].to_numpy(np.int64)[by_day.order],
    )
