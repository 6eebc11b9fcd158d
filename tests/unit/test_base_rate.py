"""The share of frauds: the textbook test, and bursts that must not look like a change."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from monitoring.base_rate import check_base_rate, measure_design_effect

START = pd.Timestamp("2026-03-02", tz="UTC")


def make_rows(is_fraud, *, customers=None, days=None) -> pd.DataFrame:
    number = np.arange(len(is_fraud))
    days = number % 28 if days is None else days
    return pd.DataFrame(
        {
            "is_fraud": np.asarray(is_fraud).astype(object),
            "weight": 1.0,
            "customer_id": [f"c{i}" for i in (number if customers is None else customers)],
            "event_time": START + pd.to_timedelta(days, unit="D"),
        }
    )


def check(known, history, *, min_frauds=10, rate=0.01):
    return check_base_rate(known, history=history, min_frauds=min_frauds, false_alarm_rate=rate)


def make_share(num: int, num_frauds: int) -> np.ndarray:
    """Frauds spread evenly, so that no customer and no day has more than its part."""
    is_fraud = np.zeros(num, dtype=bool)
    is_fraud[np.linspace(0, num - 1, num_frauds).astype(int)] = True
    return is_fraud


def test_on_independent_rows_it_is_the_two_proportion_test():
    known, history = make_rows(make_share(2000, 60)), make_rows(make_share(8000, 160))
    found = check(known, history)
    assert found.design_effect == pytest.approx(1.0, abs=0.02)
    statistic = chi2_contingency([[60, 1940], [160, 7840]], correction=False).statistic
    assert found.z_score == pytest.approx(np.sqrt(statistic / found.design_effect))
    assert (found.share, found.expected_share) == (0.03, 0.02)


def test_bursts_of_a_card_make_the_variance_as_many_times_larger():
    """Each fraud is one of ten of the same card on different days."""
    cards = np.repeat(np.arange(2000), 10)
    generator = np.random.default_rng(0)
    is_hit = generator.random(2000) < 0.02
    rows = make_rows(is_hit[cards], customers=cards, days=np.tile(np.arange(10), 2000))
    assert measure_design_effect(rows) == pytest.approx(10, rel=0.15)


def test_a_night_of_a_ring_counts_for_little_though_it_hits_many_cards():
    generator = np.random.default_rng(1)
    days = np.repeat(np.arange(28), 300)
    rates = np.where(generator.random(28) < 0.2, 0.1, 0.01)
    rows = make_rows(generator.random(days.size) < rates[days], days=days)
    assert measure_design_effect(rows) > 5


def test_false_alarms_are_as_rare_as_stated_though_frauds_come_in_bursts():
    """Of 200 unchanged worlds at 5 %: more than 20 has a chance below 0.2 %."""
    generator = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        cards = np.repeat(np.arange(1500), 8)
        is_hit = generator.random(1500) < 0.04
        rows = make_rows(is_hit[cards], customers=cards, days=np.tile(np.arange(8), 1500))
        is_known = cards < 500
        alarms += check(rows[is_known], rows[~is_known], rate=0.05).is_changed
    assert alarms <= 20


@pytest.mark.parametrize("share_let_through", [0.05, 0.25])
def test_false_alarms_are_as_rare_as_stated_though_the_rows_that_weigh_most_are_frauds(
    share_let_through,
):
    """Of 200 unchanged worlds at 5 %, one payment in a hundred declined."""
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(200):
        is_declined = generator.random(20_000) < 0.01
        rows = make_rows(generator.random(20_000) < np.where(is_declined, 0.85, 0.005))
        rows["weight"] = np.where(is_declined, 1 / share_let_through, 1.0)
        rows = rows[~is_declined | (generator.random(20_000) < share_let_through)]
        is_known = np.arange(len(rows)) % 3 == 0
        alarms += check(rows[is_known], rows[~is_known], rate=0.05).is_changed
    assert alarms <= 20


def test_a_share_three_times_as_high_is_found():
    known, history = make_rows(make_share(2000, 120)), make_rows(make_share(8000, 160))
    assert check(known, history).is_changed


def test_too_few_frauds_give_a_reason_and_no_verdict():
    found = check(make_rows(make_share(2000, 9)), make_rows(make_share(8000, 160)))
    assert found.share is None
    assert "9 matured frauds of at least 10" in found.reason


def test_what_was_let_through_stands_for_its_kind():
    known = make_rows(make_share(2000, 60))
    known["weight"] = np.where(known["is_fraud"].astype(bool), 2.0, 1.0)
    found = check(known, make_rows(make_share(8000, 160)))
    assert found.share == pytest.approx(120 / 2060)
