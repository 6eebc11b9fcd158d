"""The Fraud Detection Handbook's simulated card transactions, draw for draw.

Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud
Detection, ULB 2022, chapter 3 (simulated data). 5,000 customers and 10,000 terminals on a
100 x 100 grid, 183 days, three fraud scenarios:

- ``scenario_1``: every amount above 220;
- ``scenario_2``: every day two terminals are compromised, for 28 days;
- ``scenario_3``: every day three customers' cards leak; a third of their transactions in the next
  14 days is charged five times over.

Invariant: the draws, from Python's ``random`` and numpy's legacy generator, come in the published
order, so the counts are the published ones; that is why transactions are drawn one at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NUM_CUSTOMERS = 5000
NUM_TERMINALS = 10_000
NUM_DAYS = 183
START_TIME = pd.Timestamp("2018-04-01", tz="UTC").as_unit("us")
RADIUS = 5.0
DAY_SECONDS = 86_400
MAX_HONEST_AMOUNT = 220.0
TERMINAL_DAYS = 28
CUSTOMER_DAYS = 14


@dataclass(frozen=True)
class HandbookWorld:
    """The handbook's transactions and how its frauds came about.

    Attributes:
        transactions: One row per transaction, in time order, numbered from 0 in
            ``transaction_id``: ``time_seconds`` and ``day`` since ``START_TIME``, ``customer_id``,
            ``terminal_id`` (whole numbers), ``amount``, ``is_fraud`` and ``scenario`` (0 to 3).
        num_added: How many transactions each scenario turned into frauds.
        num_final: How many bear each scenario's label in the end; a later scenario overwrites.
    """

    transactions: pd.DataFrame
    num_added: dict[str, int]
    num_final: dict[str, int]


def simulate_handbook(
    *,
    num_customers: int = NUM_CUSTOMERS,
    num_terminals: int = NUM_TERMINALS,
    num_days: int = NUM_DAYS,
    radius: float = RADIUS,
    advance: Callable[[float], None] = lambda _: None,
) -> HandbookWorld:
    """Simulate the handbook's world; the defaults give its published counts.

    Args:
        num_customers: Customers; seed 0 draws them.
        num_terminals: Terminals; seed 1 draws them.
        num_days: Days from 2018-04-01.
        radius: A customer uses the terminals nearer than this, Euclidean, in grid units.
        advance: Called with 1 when a customer is done, for a progress bar.
    """
    customers = _draw_customers(num_customers)
    terminals = np.random.RandomState(1).uniform(0, 100, size=(num_terminals, 2))
    parts = []
    for customer, (x, y, mean_amount, daily_rate) in enumerate(customers.tolist()):
        distance = np.sqrt(np.square(terminals - (x, y)).sum(axis=1))
        part = _draw_transactions(
            customer,
            mean_amount=mean_amount,
            daily_rate=daily_rate,
            terminals=np.flatnonzero(distance < radius).tolist(),
            num_days=num_days,
        )
        parts.append(part)
        advance(1)
    transactions = _order(np.concatenate(parts))
    num_added = _add_frauds(transactions, num_customers=num_customers, num_terminals=num_terminals)
    num_final = {
        f"scenario_{scenario}": int((transactions["scenario"] == scenario).sum())
        for scenario in (1, 2, 3)
    }
    return HandbookWorld(transactions, num_added, num_final)


def convert_handbook(
    transactions: pd.DataFrame, *, label_delay_days: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn the handbook's transactions into ours: terminals become merchants.

    Every label arrives ``label_delay_days`` after its event, as in the handbook's protocol (7).

    Args:
        transactions: As in ``HandbookWorld``.
        label_delay_days: Days from event to label.

    Returns:
        Transactions and labels, in the same order.
    """
    ids = "t" + transactions["transaction_id"].astype(str).str.zfill(8)
    elapsed = pd.to_timedelta(transactions["time_seconds"], unit="s").dt.as_unit("us")
    event_time = START_TIME + elapsed
    converted = pd.DataFrame(
        {
            "transaction_id": ids,
            "event_time": event_time,
            "customer_id": "c" + transactions["customer_id"].astype(str),
            "merchant_id": "m" + transactions["terminal_id"].astype(str),
            "amount": transactions["amount"].round(2),
        }
    )
    patterns = np.array(["", "scenario_1", "scenario_2", "scenario_3"], dtype=object)
    labels = pd.DataFrame(
        {
            "transaction_id": ids,
            "is_fraud": transactions["is_fraud"],
            "label_time": event_time + pd.Timedelta(days=label_delay_days).as_unit("us"),
            "fraud_pattern": patterns[transactions["scenario"].to_numpy()],
        }
    )
    return converted, labels


def _draw_customers(num: int) -> NDArray[np.float64]:
    """Draw x, y, mean amount and transactions a day of each customer, shape (num, 4)."""
    low, high = np.array([0.0, 0.0, 5.0, 0.0]), np.array([100.0, 100.0, 100.0, 4.0])
    return np.random.RandomState(0).uniform(low, high, size=(num, 4))


def _draw_transactions(
    customer: int,
    *,
    mean_amount: float,
    daily_rate: float,
    terminals: list[int],
    num_days: int,
) -> NDArray[np.float64]:
    """Draw one customer's transactions: customer, day, second of the day, terminal, amount.

    Both generators are seeded with the customer's number. A time outside the day is dropped before
    its amount is drawn; a customer without terminals draws everything and keeps nothing.
    """
    stream = np.random.RandomState(customer)
    draw_normal, draw_uniform, draw_count = stream.normal, stream.uniform, stream.poisson
    choose = random.Random(customer).choice
    rows = []
    for day in range(num_days):
        for _ in range(draw_count(daily_rate)):
            second = int(draw_normal(DAY_SECONDS / 2, 20_000))
            if 0 < second < DAY_SECONDS:
                amount = draw_normal(mean_amount, mean_amount / 2)
                if amount < 0:
                    amount = draw_uniform(0, mean_amount * 2)
                if terminals:
                    rows.append((customer, day, second, choose(terminals), amount))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _order(rows: NDArray[np.float64]) -> pd.DataFrame:
    """Put all transactions in time order and number them; amounts are rounded to cents."""
    seconds = rows[:, 1] * DAY_SECONDS + rows[:, 2]
    rows = rows[np.argsort(seconds, kind="stable")]
    return pd.DataFrame(
        {
            "transaction_id": np.arange(len(rows)),
            "time_seconds": (rows[:, 1] * DAY_SECONDS + rows[:, 2]).astype(np.int64),
            "day": rows[:, 1].astype(np.int64),
            "customer_id": rows[:, 0].astype(np.int64),
            "terminal_id": rows[:, 3].astype(np.int64),
            "amount": np.round(rows[:, 4], 2),
            "is_fraud": False,
            "scenario": 0,
        }
    )


def _add_frauds(
    transactions: pd.DataFrame, *, num_customers: int, num_terminals: int
) -> dict[str, int]:
    """Write the three scenarios into ``transactions``, in order; count what each one added."""
    scenario = np.where(transactions["amount"] > MAX_HONEST_AMOUNT, 1, 0)
    amount = transactions["amount"].to_numpy().copy()
    num_frauds = [0, int((scenario > 0).sum())]
    day = transactions["day"].to_numpy()
    days = range(int(day.max(initial=0)))

    terminals, terminal = pd.Series(range(num_terminals)), transactions["terminal_id"].to_numpy()
    for first in days:
        compromised = terminals.sample(n=2, random_state=first).to_numpy()
        window = _find_window(day, first=first, num_days=TERMINAL_DAYS)
        scenario[window][np.isin(terminal[window], compromised)] = 2
    num_frauds.append(int((scenario > 0).sum()))

    customers, customer = pd.Series(range(num_customers)), transactions["customer_id"].to_numpy()
    for first in days:
        leaked = customers.sample(n=3, random_state=first).to_numpy()
        window = _find_window(day, first=first, num_days=CUSTOMER_DAYS)
        exposed = window.start + np.flatnonzero(np.isin(customer[window], leaked))
        charged = random.Random(first).sample(exposed.tolist(), k=len(exposed) // 3)
        amount[charged] *= 5
        scenario[charged] = 3
    num_frauds.append(int((scenario > 0).sum()))

    transactions["amount"] = amount
    transactions["scenario"] = scenario
    transactions["is_fraud"] = scenario > 0
    return {f"scenario_{k}": num_frauds[k] - num_frauds[k - 1] for k in (1, 2, 3)}


def _find_window(day: NDArray[np.int64], *, first: int, num_days: int) -> slice:
    """Return the rows of ``[first, first + num_days)``; rows are in time order."""
    start, end = np.searchsorted(day, [first, first + num_days])
    return slice(int(start), int(end))
