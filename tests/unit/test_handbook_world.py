"""The handbook's world against its published counts and against its code, written out plainly."""

import random

import numpy as np
import pandas as pd
import pytest

from data.fraud_contract import check_transactions
from data.handbook import convert_handbook, simulate_handbook
from training.handbook_protocol import TRAIN_START, find_day, split_weeks

SMALL = {"num_customers": 150, "num_terminals": 300, "num_days": 25, "radius": 4.0}


def simulate_as_published(*, num_customers, num_terminals, num_days, radius):
    """The handbook's chapter 3, step by step, on the global generators it uses."""
    np.random.seed(0)  # noqa: NPY002
    draw = np.random.uniform
    customers = [
        (draw(0, 100), draw(0, 100), draw(5, 100), draw(0, 4)) for _ in range(num_customers)
    ]
    np.random.seed(1)  # noqa: NPY002
    terminals = np.array([(draw(0, 100), draw(0, 100)) for _ in range(num_terminals)])
    rows = []
    for customer, (x, y, mean, rate) in enumerate(customers):
        near = [
            k for k, (a, b) in enumerate(terminals) if ((a - x) ** 2 + (b - y) ** 2) ** 0.5 < radius
        ]
        random.seed(customer)
        np.random.seed(customer)  # noqa: NPY002
        for day in range(num_days):
            for _ in range(np.random.poisson(rate)):  # noqa: NPY002
                time = int(np.random.normal(86400 / 2, 20000))  # noqa: NPY002
                if 0 < time < 86400:
                    amount = np.random.normal(mean, mean / 2)  # noqa: NPY002
                    if amount < 0:
                        amount = draw(0, mean * 2)
                    if near:
                        terminal = random.choice(near)
                        rows.append(
                            [time + day * 86400, day, customer, terminal, np.round(amount, 2)]
                        )
    names = ["time_seconds", "day", "customer_id", "terminal_id", "amount"]
    table = pd.DataFrame(rows, columns=names).sort_values("time_seconds", kind="stable")
    table = table.reset_index(drop=True).assign(scenario=0)
    table.loc[table["amount"] > 220, "scenario"] = 1
    for day in range(table["day"].max()):
        chosen = pd.Series(range(num_terminals)).sample(n=2, random_state=day)
        is_hit = table["day"].between(day, day + 27) & table["terminal_id"].isin(chosen)
        table.loc[is_hit, "scenario"] = 2
    for day in range(table["day"].max()):
        chosen = pd.Series(range(num_customers)).sample(n=3, random_state=day)
        exposed = table[table["day"].between(day, day + 13) & table["customer_id"].isin(chosen)]
        random.seed(day)
        charged = random.sample(list(exposed.index), k=int(len(exposed) / 3))
        table.loc[charged, "amount"] *= 5
        table.loc[charged, "scenario"] = 3
    return table


@pytest.fixture(scope="module")
def small():
    return simulate_handbook(**SMALL)


def test_a_small_world_equals_the_published_code_row_by_row(small):
    expected = simulate_as_published(**SMALL)
    assert len(expected) > 2000
    assert set(range(150)) - set(expected["customer_id"])  # some have no terminal in reach
    assert set(expected["scenario"]) == {0, 1, 2, 3}
    pd.testing.assert_frame_equal(small.transactions[expected.columns.tolist()], expected)


@pytest.fixture(scope="module")
def whole():
    return simulate_handbook()


def test_the_whole_world_has_the_published_counts(whole):
    """REFERENCES: 1,754,155 transactions, 14,681 frauds; added and final by scenario."""
    world = whole
    assert len(world.transactions) == 1_754_155
    assert world.num_added == {"scenario_1": 978, "scenario_2": 9_099, "scenario_3": 4_604}
    assert int(world.transactions["is_fraud"].sum()) == 14_681
    assert world.num_final == {"scenario_1": 973, "scenario_2": 9_077, "scenario_3": 4_631}


def test_its_single_split_has_the_published_counts(whole):
    split = split_weeks(whole.transactions, first_day=find_day(TRAIN_START))
    is_fraud = whole.transactions["is_fraud"].to_numpy()
    assert (len(split.train), is_fraud[split.train].sum()) == (67_240, 598)
    assert (len(split.test), is_fraud[split.test].sum()) == (58_264, 385)


def test_it_converts_to_the_contract_with_labels_a_week_later(small):
    transactions, labels = convert_handbook(small.transactions, label_delay_days=7)
    checked = check_transactions(transactions, labels, max_quarantine_share=0.0)
    assert len(checked.transactions) == len(small.transactions)
    assert transactions["event_time"].iloc[0] == pd.Timestamp(
        "2018-04-01", tz="UTC"
    ) + pd.Timedelta(seconds=int(small.transactions["time_seconds"].iloc[0]))
    assert ((labels["label_time"] - transactions["event_time"]) == pd.Timedelta(days=7)).all()
    counts = labels["fraud_pattern"].value_counts()
    assert {name: counts.get(name, 0) for name in small.num_final} == small.num_final
    assert (labels["is_fraud"] == (labels["fraud_pattern"] != "")).all()


def test_an_amount_that_rounds_to_nothing_is_admitted(small):
    free = small.transactions.assign(amount=0.0)
    frames = convert_handbook(free, label_delay_days=7)
    assert len(check_transactions(*frames, max_quarantine_share=0.0).transactions) == len(free)
