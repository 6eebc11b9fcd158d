"""What the time-lapse's worlds are, and what its policies may know of them."""

import numpy as np
import pandas as pd
import pytest

from configs.schema import load_fraud_config
from configs.sections import WorldSize
from data.fraud_world import find_change, simulate_world
from monitoring.timelapse_models import mask_outcomes
from monitoring.timelapse_policies import OURS, list_policies
from monitoring.timelapse_worlds import plan_worlds
from timelapse_commands import World

SMALL = {
    "timelapse.before_days": 10,
    "timelapse.served_days": 20,
    "timelapse.change_day": 5,
    "timelapse.gradual_days": 10,
    "timelapse.gradual": {"amount_factor": 3.0, "pattern_factors": {"ip_ring": 2.0}},
    "timelapse.abrupt": {"pattern_factors": {"ip_ring": 8.0}},
}


@pytest.fixture(scope="module")
def config():
    return load_fraud_config(changes=SMALL)


@pytest.fixture(scope="module")
def plans(config):
    return {plan.name: plan for plan in plan_worlds(config.timelapse)}


def simulate(plan, *, num_days=30):
    size = WorldSize(num_customers=400, num_merchants=60, num_days=num_days)
    start = pd.Timestamp("2026-01-01", tz="UTC")
    return simulate_world(
        size,
        seed=5,
        start_time=start,
        label_delay_days=3,
        never_reported_share=0.0,
        changes=plan.changes,
    )


def test_the_command_line_takes_the_names_of_the_worlds_that_are_replayed(plans):
    assert list(World) == list(plans)


def test_a_gradual_change_moves_every_day_in_one_direction_and_then_stays(plans):
    factors = [find_change(plans["gradual"].changes, day=day).amount_factor for day in range(30)]
    assert factors[:15] == [1.0] * 15
    assert np.all(np.diff(factors[14:25]) > 0)
    assert factors[24:] == [3.0] * 6


def test_the_gradual_world_is_the_unchanged_one_until_its_change(plans):
    (before, _), (same, _) = simulate(plans["unchanged"]), simulate(plans["gradual"])
    change = pd.Timestamp("2026-01-16", tz="UTC")
    pd.testing.assert_frame_equal(
        before[before["event_time"] < change], same[same["event_time"] < change]
    )
    assert len(before) != len(same)


def test_the_abrupt_pattern_does_not_exist_before_its_day_and_does_after(plans):
    transactions, labels = simulate(plans["abrupt"])
    rings = labels[labels["fraud_pattern"] == "ip_ring"].merge(transactions, on="transaction_id")
    assert len(rings) > 20
    assert rings["event_time"].min() >= pd.Timestamp("2026-01-16", tz="UTC")


def test_a_broken_feed_is_no_change_of_the_world(plans):
    assert plans["broken_feed"].changes == ()
    assert plans["broken_feed"].damage.first_day == 5


def test_a_change_that_does_not_fit_the_days_is_refused(config):
    late = config.timelapse.model_copy(update={"change_day": 15})
    with pytest.raises(ValueError, match="must end within served_days 20"):
        plan_worlds(late)


def test_simple_policies_have_one_rule_and_no_gate(config):
    policies = {policy.name: policy for policy in list_policies(config)}
    for name, policy in policies.items():
        if name != OURS:
            rules = (policy.retraining.floor_days is not None) + len(policy.retraining.triggers)
            assert rules <= 1
            assert not policy.rollout.gate
            assert not policy.looks_at_feed
    assert policies["never"].retraining.floor_days is None
    assert policies["never"].retraining.triggers == ()


def test_ours_is_the_configurations_own_policy_over_as_many_looks(config):
    ours = list_policies(config)[-1]
    assert ours.rollout == config.rollout
    # 3 looks, one every 3 days, lie within 7 days
    assert ours.retraining == config.retraining.model_copy(update={"num_recent": 7})


NOW = pd.Timestamp("2026-02-01", tz="UTC")


def make_truth(*label_times):
    return pd.DataFrame(
        {
            "is_fraud": [True] * len(label_times),
            "label_time": pd.to_datetime(list(label_times), utc=True),
            "fraud_pattern": "ip_ring",
        }
    )


def test_what_was_declined_is_not_known_however_old_it_is():
    known = mask_outcomes(make_truth("2026-01-01", "2026-01-01"), np.array([0.0, 1.0]), now=NOW)
    assert known["is_fraud"].notna().tolist() == [False, True]
    assert known["label_time"].notna().tolist() == [False, True]
    assert known["fraud_pattern"].tolist() == ["", "ip_ring"]


def test_a_label_of_tomorrow_is_not_known():
    known = mask_outcomes(make_truth("2026-02-01", "2026-02-02"), np.ones(2), now=NOW)
    assert known["is_fraud"].notna().tolist() == [True, False]


def test_a_label_that_never_comes_is_not_known():
    known = mask_outcomes(make_truth(None, "2026-01-05"), np.ones(2), now=NOW)
    assert known["is_fraud"].notna().tolist() == [False, True]
