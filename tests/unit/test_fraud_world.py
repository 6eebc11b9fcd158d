"""The simulated world: same seed, same world; changes touch only what comes after them."""

import time

import numpy as np
import pandas as pd
import pytest

from configs.schema import load_fraud_config
from configs.sections import WorldChange, WorldSize
from data.fraud_contract import TRANSACTION_COLUMNS, check_transactions
from data.fraud_events import PATTERNS, name_devices, name_ips
from data.fraud_world import simulate_world

START = pd.Timestamp("2026-01-01", tz="UTC")
CHANGE_DAY = 20


def simulate(*, changes=(), seed=3, num_days=40, num_customers=600, never_reported_share=0.05):
    return simulate_world(
        WorldSize(num_customers=num_customers, num_merchants=250, num_days=num_days),
        seed=seed,
        start_time=START,
        label_delay_days=7,
        never_reported_share=never_reported_share,
        changes=changes,
    )


@pytest.fixture(scope="module")
def world():
    return simulate(num_days=60, num_customers=1500, never_reported_share=0.0)


@pytest.fixture(scope="module")
def events(world):
    """The world's transactions with their truth beside them, and what each customer did before."""
    transactions, labels = world
    merged = transactions.merge(labels, on="transaction_id", validate="1:1")
    merged["hour"] = merged["event_time"].dt.hour
    merged["day"] = (merged["event_time"] - START).dt.days
    by_customer = merged.groupby("customer_id")
    merged["amount_ratio"] = merged["amount"] / by_customer["amount"].transform("median")
    home = by_customer[["latitude", "longitude"]].transform("median")
    merged["is_far"] = ((merged[["latitude", "longitude"]] - home).abs() > 2).any(axis=1)
    merged["is_new_device"] = ~merged.duplicated(["customer_id", "device_id"])
    merged["is_new_merchant"] = ~merged.duplicated(["customer_id", "merchant_id"])
    return merged[merged["day"] >= 20]


def of(events, pattern):
    return events[events["fraud_pattern"] == pattern]


def before(frames, day):
    transactions, labels = frames
    early = transactions[transactions["event_time"] < START + pd.Timedelta(days=day)]
    return early, labels[labels["transaction_id"].isin(early["transaction_id"])]


def test_the_same_seed_gives_the_same_world_and_another_seed_another():
    for first, second in zip(simulate(num_days=5), simulate(num_days=5), strict=True):
        pd.testing.assert_frame_equal(first, second)
    other, _ = simulate(num_days=5, seed=4)
    assert not other["amount"].head(50).equals(simulate(num_days=5)[0]["amount"].head(50))


def test_the_world_keeps_the_contract_without_a_single_refusal(world):
    checked = check_transactions(*world, max_quarantine_share=0.0)
    pd.testing.assert_frame_equal(checked.transactions, world[0])
    pd.testing.assert_frame_equal(checked.labels, world[1])
    assert tuple(world[0].columns) == TRANSACTION_COLUMNS
    assert not world[0].isna().any().any()


def test_ids_are_numbered_in_time_order_and_amounts_are_positive_cents(world):
    transactions, _ = world
    assert transactions["transaction_id"].tolist()[:2] == ["t00000001", "t00000002"]
    assert transactions["transaction_id"].is_monotonic_increasing
    assert transactions["event_time"].is_monotonic_increasing
    assert transactions["amount"].min() > 0
    np.testing.assert_array_equal(transactions["amount"], transactions["amount"].round(2))
    last = START + pd.Timedelta(days=60)
    assert transactions["event_time"].between(START, last, inclusive="left").all()


@pytest.mark.parametrize(
    "change",
    [
        WorldChange(day=CHANGE_DAY, volume_factor=2.0),
        WorldChange(day=CHANGE_DAY, amount_factor=1.5),
        WorldChange(day=CHANGE_DAY, pattern_factors=dict.fromkeys(PATTERNS, 4.0)),
        WorldChange(day=CHANGE_DAY, pattern_factors=dict.fromkeys(PATTERNS, 0.0)),
    ],
)
def test_a_scheduled_change_leaves_everything_before_its_day_as_it_was(change):
    unchanged, changed = simulate(), simulate(changes=[change])
    for first, second in zip(before(unchanged, 20), before(changed, 20), strict=True):
        assert len(first) > 5000
        pd.testing.assert_frame_equal(first, second)
    assert not changed[0].iloc[-1].equals(unchanged[0].iloc[-1])


def test_volume_multiplies_how_many_there_are():
    doubled, _ = simulate(changes=[WorldChange(day=0, volume_factor=2.0)], num_days=15)
    assert len(doubled) / len(simulate(num_days=15)[0]) == pytest.approx(2.0, rel=0.05)


def test_the_amount_factor_multiplies_every_amount_and_moves_nothing_else():
    dear, _ = simulate(changes=[WorldChange(day=0, amount_factor=1.5)], num_days=10)
    plain, _ = simulate(num_days=10)
    np.testing.assert_allclose(dear["amount"], plain["amount"] * 1.5, atol=0.0126)
    pd.testing.assert_frame_equal(dear.drop(columns="amount"), plain.drop(columns="amount"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_patterns_factor_multiplies_it_and_leaves_every_other_event_alone(pattern):
    def simulate_factor(factor):
        change = WorldChange(day=0, pattern_factors={pattern: factor})
        frames = simulate(changes=[change], num_days=30, never_reported_share=0.0)
        events = frames[0].merge(frames[1], on="transaction_id")
        return events.drop(columns=["transaction_id", "label_time"])

    off, once, often = simulate_factor(0.0), simulate_factor(1.0), simulate_factor(5.0)
    assert of(off, pattern).empty
    assert 2.5 * len(of(once, pattern)) < len(of(often, pattern)) < 10 * len(of(once, pattern))
    others = [events[events["fraud_pattern"] != pattern] for events in (off, often)]
    pd.testing.assert_frame_equal(*(rows.reset_index(drop=True) for rows in others))


def test_the_latest_change_alone_describes_the_world():
    turned_off = WorldChange(day=0, pattern_factors=dict.fromkeys(PATTERNS, 0.0))
    frames = simulate(changes=[turned_off, WorldChange(day=CHANGE_DAY)], never_reported_share=0.0)
    first_fraud = frames[0].merge(frames[1][frames[1]["is_fraud"]])["event_time"].min()
    assert first_fraud >= START + pd.Timedelta(days=CHANGE_DAY)


def test_an_unknown_pattern_in_the_schedule_is_an_error_that_lists_them():
    change = WorldChange(day=3, pattern_factors={"phishing": 2.0})
    with pytest.raises(ValueError, match="pattern 'phishing'; it must be one of: card_testing"):
        simulate(changes=[change])


def test_a_world_starts_at_midnight():
    with pytest.raises(ValueError, match=r"data.start_time is 2026-01-01T06:00:00"):
        simulate_world(
            WorldSize(num_customers=1, num_merchants=1, num_days=1),
            seed=1,
            start_time=START + pd.Timedelta(hours=6),
            label_delay_days=7,
            never_reported_share=0.0,
        )


def test_the_smallest_world_there_is_can_be_simulated():
    transactions, labels = simulate_world(
        WorldSize(num_customers=1, num_merchants=1, num_days=1),
        seed=1,
        start_time=START,
        label_delay_days=1,
        never_reported_share=1.0,
    )
    assert set(transactions["customer_id"]) <= {"c00000"}
    assert labels.empty


def test_legitimate_labels_arrive_after_the_delay_and_frauds_within_it(events):
    delay = events["label_time"] - events["event_time"]
    assert (delay[~events["is_fraud"]] == pd.Timedelta(days=7)).all()
    assert delay[events["is_fraud"]].between(pd.Timedelta(0), pd.Timedelta(days=7)).all()
    assert delay[events["is_fraud"]].median() < pd.Timedelta(days=3.5)


def test_the_stated_share_of_labels_never_arrives():
    transactions, labels = simulate(never_reported_share=0.05)
    assert 1 - len(labels) / len(transactions) == pytest.approx(0.05, abs=0.005)


def test_the_demo_world_has_its_size_its_fraud_rate_and_its_speed():
    config = load_fraud_config()
    started = time.process_time()
    transactions, labels = simulate_world(
        config.data.sizes["demo"],
        seed=config.seed,
        start_time=config.data.start_time,
        label_delay_days=config.data.label_delay_days,
        never_reported_share=config.data.never_reported_share,
    )
    seconds = time.process_time() - started
    assert 285_000 < len(transactions) < 325_000
    assert 0.009 < labels["is_fraud"].mean() < 0.0135
    shares = labels.loc[labels["is_fraud"], "fraud_pattern"].value_counts(normalize=True)
    assert sorted(shares.index) == sorted(PATTERNS)
    assert shares.min() > 0.08
    assert seconds / len(transactions) * 1e6 < 10  # a million in ten seconds


def test_card_testing_is_many_small_amounts_within_minutes(events):
    tests = of(events, "card_testing")
    gaps = tests.sort_values("event_time").groupby("customer_id")["event_time"].diff()
    assert gaps[gaps < pd.Timedelta(hours=12)].median() < pd.Timedelta(minutes=10)
    assert tests["amount"].median() < 0.6 * of(events, "")["amount"].median()
    assert tests["is_new_device"].sum() < len(tests) / 3  # one device a burst


def test_account_takeover_is_night_far_new_and_high_but_never_always(events):
    stolen, honest = of(events, "account_takeover"), of(events, "")
    for column in ("is_far", "is_new_device"):
        assert stolen[column].mean() > 3 * honest[column].mean()
        assert stolen[column].mean() < 0.9
    assert 0.4 < (stolen["hour"] < 6).mean() < 0.9
    assert stolen["amount_ratio"].median() > 2 * honest["amount_ratio"].median()


def test_compromised_merchants_stand_out_for_some_weeks_and_then_no_more(events):
    hit = of(events, "compromised_merchant")
    worst = hit["merchant_id"].value_counts().index[0]
    days = hit.loc[hit["merchant_id"] == worst, "day"]
    at_worst = events[
        (events["merchant_id"] == worst) & events["day"].between(*days.quantile([0, 1]))
    ]
    assert at_worst["is_fraud"].mean() > 5 * events["is_fraud"].mean()
    assert at_worst["is_fraud"].mean() < 0.6
    assert hit["merchant_id"].value_counts().head(8).sum() > 0.5 * len(hit)


def test_a_ring_is_more_customers_than_a_home_and_fewer_than_a_carrier(events):
    crowd = events.groupby(["ip", "day"])["customer_id"].nunique()
    ring_days = of(events, "ip_ring").drop_duplicates(["ip", "day"])[["ip", "day"]]
    ring = crowd.loc[list(ring_days.itertuples(index=False, name=None))]
    assert 3 <= ring.median() <= 10
    assert crowd.median() <= 2
    assert crowd.max() > 15
    honest = crowd.drop(ring.index)
    assert (honest.between(4, 10)).sum() > (ring.between(4, 10)).sum()  # cafes hide rings


def test_first_seen_high_is_a_new_merchant_and_a_high_amount_as_honest_purchases_can_be(events):
    scams, honest = of(events, "first_seen_high"), of(events, "")
    assert scams["is_new_merchant"].mean() > 0.7
    assert scams["amount_ratio"].median() > 4 * honest["amount_ratio"].median()
    alike = honest[honest["is_new_merchant"] & (honest["amount_ratio"] > 4)]
    assert len(alike) > len(scams)


def test_no_single_fact_about_a_transaction_gives_fraud_away(events):
    """Whatever one column one looks at, most of what looks like fraud is honest."""
    suspicions = {
        "far": events["is_far"],
        "new device": events["is_new_device"],
        "new merchant": events["is_new_merchant"],
        "high amount": events["amount_ratio"] > 8,
        "deep night": events["hour"].between(1, 4),
    }
    for name, is_suspect in suspicions.items():
        precision = events.loc[is_suspect, "is_fraud"].mean()
        assert 0.01 < precision < 0.4, f"{name}: {precision}"


def test_people_buy_by_day_and_night_owls_at_night(events):
    honest = of(events, "")
    by_hour = honest["hour"].value_counts(normalize=True)
    assert by_hour[[12, 18, 19]].min() > 4 * by_hour[[3, 4, 5]].max()
    at_night = honest["hour"].isin([23, 0, 1, 2]).groupby(honest["customer_id"]).mean()
    assert 0.03 < (at_night > 0.25).mean() < 0.2


def test_address_and_device_codes_never_share_a_name():
    codes = np.arange(200_000) * 41
    assert len(set(name_ips(codes))) == len(codes)
    assert len(set(name_devices(codes))) == len(codes)
