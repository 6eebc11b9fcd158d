"""The decision to train: what asks for it, what holds it back, and that it says so."""

from dataclasses import replace

import pandas as pd
import pytest

from configs.schema import load_fraud_config
from monitoring.retraining_policy import (
    Alarm,
    History,
    Observation,
    decide_training,
    read_observation,
)

NOW = pd.Timestamp("2026-05-20T06:00Z")
OFF, ON, UNKNOWN = Alarm(False, "quiet"), Alarm(True, "loud"), Alarm(None, "too few rows")
POLICY = load_fraud_config().retraining.model_copy(
    update={
        "floor_days": 28,
        "follow_up_days": 7,
        "triggers": ("drift", "matured"),
        "min_alarms": 2,
        "min_joint_alarms": 2,
        "num_recent": 3,
        "cooldown_days": 7,
        "budget": 2,
        "budget_days": 60,
        "min_new_frauds": 50,
    }
)


def days_ago(days: float) -> pd.Timestamp:
    return NOW - pd.Timedelta(days=days)


def see(days: float = 0, **changes: object) -> Observation:
    seen = Observation(
        now=days_ago(days),
        champion="3",
        champion_trained_time=days_ago(10),
        blocking=(),
        alarms={"drift": OFF, "matured": OFF},
        num_new_frauds=50,
    )
    return replace(seen, **changes)


def loud(days: float = 0, **changes: object) -> Observation:
    return see(days, **{"alarms": {"drift": ON, "matured": OFF}, **changes})


def decide(observation, *recent, policy=POLICY, **history):
    return decide_training(
        observation, history=History(recent=tuple(recent), **history), policy=policy
    )


def test_a_quiet_world_is_kept_and_says_what_was_looked_at():
    decision = decide(see())
    assert (decision.action, decision.trigger, decision.key) == ("keep", None, None)
    assert decision.reasons == (
        "drift: quiet",
        "matured: quiet",
        "the next training is due on 2026-06-07 at the latest",
    )


def test_one_alarm_of_the_two_needed_is_not_enough():
    assert decide(loud(), see(1)).action == "keep"


def test_two_alarms_in_three_days_train_and_name_the_trigger():
    decision = decide(loud(), see(1), loud(2))
    assert (decision.action, decision.trigger) == ("train", "drift")
    assert decision.reasons == ("drift alarm on 2 of the last 3 days: loud",)


def test_an_alarm_of_the_fourth_day_back_is_forgotten():
    assert decide(loud(), see(1), see(2), loud(3)).action == "keep"


def test_many_ticks_of_one_day_are_worth_one_alarm():
    assert decide(loud(), loud(0.02), loud(0.01)).action == "keep"


def test_a_days_last_tick_is_its_word():
    assert decide(see(), loud(0.02), loud(1), loud(2), policy=POLICY).action == "train"
    assert decide(see(), loud(0.02), loud(1), see(2)).action == "keep"


def test_a_training_that_met_a_changed_world_is_followed_by_another():
    assert decide(see(), unfinished_time=days_ago(6.9)).action == "keep"
    decision = decide(see(), unfinished_time=days_ago(7))
    assert (decision.action, decision.trigger) == ("train", "follow_up")
    assert decision.key == "follow_up:v3:2026-05-20"
    assert "7 days have passed since a training that met a changed world" in decision.reasons[0]


def test_an_alarm_that_goes_on_asks_before_the_follow_up_does():
    decision = decide(loud(), loud(1), unfinished_time=days_ago(8))
    assert decision.trigger == "drift"
    assert len(decision.reasons) == 2


@pytest.mark.parametrize(
    ("policy", "history"),
    [
        (POLICY, {"trained_time": days_ago(8)}),
        (POLICY.model_copy(update={"follow_up_days": None}), {"unfinished_time": days_ago(8)}),
    ],
    ids=["after a training that found nothing new", "switched off"],
)
def test_nothing_is_followed_up(policy, history):
    assert decide(see(), policy=policy, **history).action == "keep"


def test_a_follow_up_waits_for_the_attempt_under_way_and_not_for_the_cooldown():
    history = {"unfinished_time": days_ago(7), "settled_time": days_ago(3)}
    assert decide(see(), **history).action == "train"
    decision = decide(see(), **history, active="drift:v2 is under way")
    assert (decision.trigger, decision.held_by) == ("follow_up", "attempt")


def test_two_triggers_do_not_add_up():
    other = see(1, alarms={"drift": OFF, "matured": ON})
    assert decide(loud(), other).action == "keep"


STRICT = POLICY.model_copy(update={"min_alarms": 3})


def hear_both(days: float = 0) -> Observation:
    return see(days, alarms={"drift": ON, "matured": ON})


def test_a_trigger_alone_must_go_on_for_longer_than_two_that_confirm_one_another():
    assert decide(loud(), see(1), loud(2), policy=STRICT).action == "keep"
    assert decide(loud(), loud(1), loud(2), policy=STRICT).wishes == ("drift",)
    assert decide(hear_both(), see(1), hear_both(2), policy=STRICT).wishes == ("drift", "matured")


def test_a_trigger_that_went_off_once_confirms_nothing():
    assert decide(hear_both(), loud(1), see(2), policy=STRICT).action == "keep"


def test_a_trigger_that_goes_on_is_not_confirmed_by_one_that_does_not():
    assert decide(hear_both(), loud(1), loud(2), policy=STRICT).wishes == ("drift",)


def test_a_trigger_the_policy_does_not_watch_is_not_heard():
    policy = POLICY.model_copy(update={"triggers": ("matured",)})
    assert decide(loud(), loud(1), policy=policy).action == "keep"


def test_what_cannot_be_told_is_no_alarm():
    unknown = see(1, alarms={"drift": UNKNOWN})
    assert decide(loud(), unknown).action == "keep"


def test_alarms_about_another_champion_do_not_count():
    assert decide(loud(), loud(1, champion="2")).action == "keep"


def test_alarms_that_led_to_the_last_attempt_do_not_count_again():
    settled = {"settled_time": days_ago(0.5)}
    policy = POLICY.model_copy(update={"cooldown_days": 0})
    assert decide(loud(), loud(1), policy=policy, **settled).action == "keep"


def test_alarms_on_a_broken_feed_do_not_count_once_it_is_repaired():
    assert decide(loud(), loud(1, blocking=("ip is empty",))).action == "keep"


def test_a_broken_feed_blocks_and_is_named():
    decision = decide(loud(blocking=("ip is empty",)), loud(1))
    assert (decision.action, decision.held_by) == ("blocked", "quality")
    assert "ip is empty" in decision.reasons


def test_a_broken_feed_blocks_the_floor_too():
    old = see(champion_trained_time=days_ago(40), blocking=("ip is empty",))
    assert decide(old).action == "blocked"


def test_the_floor_trains_without_any_alarm():
    decision = decide(see(champion_trained_time=days_ago(28)))
    assert (decision.action, decision.trigger) == ("train", "floor")
    assert decision.key == "floor:v3:2026-05-20"


def test_the_floor_waits_for_its_last_hour():
    assert decide(see(champion_trained_time=days_ago(27.99))).action == "keep"


def test_a_training_that_was_turned_down_counts_for_the_floor():
    old = see(champion_trained_time=days_ago(60))
    assert decide(old, trained_time=days_ago(20)).action == "keep"
    assert decide(old, trained_time=days_ago(28)).action == "train"


def test_without_a_floor_and_triggers_nothing_ever_trains():
    never = POLICY.model_copy(update={"floor_days": None, "triggers": ()})
    old = loud(champion_trained_time=days_ago(999))
    assert decide(old, loud(1), policy=never).action == "keep"


HELD = {
    "attempt": ({"active": "drift:v3:2026-05-10 is under way"}, {}),
    "cooldown": ({"settled_time": days_ago(6.9)}, {}),
    "budget": ({"attempt_times": (days_ago(50), days_ago(30))}, {}),
    "positives": ({}, {"num_new_frauds": 49}),
    "repeated": ({"keys": frozenset({"drift:v3:2026-05-20"})}, {}),
}


@pytest.mark.parametrize("guard", HELD)
def test_each_guard_holds_a_wish_back_and_both_are_told(guard):
    history, changes = HELD[guard]
    decision = decide(loud(**changes), loud(1), **history)
    assert (decision.action, decision.held_by, decision.trigger) == ("keep", guard, "drift")
    assert decision.key is None
    assert decision.reasons[0].startswith("not training: ")
    assert "loud" in decision.reasons[1]


@pytest.mark.parametrize("guard", ["attempt", "cooldown", "budget", "positives"])
def test_the_floor_gets_past_no_guard(guard):
    history, changes = HELD[guard]
    decision = decide(see(champion_trained_time=days_ago(40), **changes), **history)
    assert (decision.action, decision.held_by) == ("keep", guard)


LIMITS = {
    "cooldown": {"settled_time": days_ago(7)},
    "budget": {"attempt_times": (days_ago(60), days_ago(30))},
}


@pytest.mark.parametrize("guard", LIMITS)
def test_a_guard_lets_go_when_its_time_is_over(guard):
    policy = POLICY.model_copy(update={"min_alarms": 1})
    assert decide(loud(), policy=policy, **LIMITS[guard]).action == "train"


def test_the_budget_says_when_the_next_training_is_free():
    decision = decide(loud(), loud(1), attempt_times=(days_ago(50), days_ago(30)))
    assert "the next is free on 2026-05-30" in decision.reasons[0]


def test_the_same_evidence_has_the_same_key_and_tomorrows_another():
    keys = [decide(loud(days), loud(days + 1)).key for days in (0, 0, -1)]
    assert keys == ["drift:v3:2026-05-20", "drift:v3:2026-05-20", "drift:v3:2026-05-21"]


def test_an_observation_survives_json():
    seen = loud(blocking=("ip is empty",), evidence={"rows": 3})
    assert read_observation(seen.describe()) == seen
