"""Each edge of the loop's state machine, on a registry in a file and a script of observations."""

from dataclasses import replace

import pandas as pd
import pytest

from monitoring.loop_machine import advance_loop
from tests.unit.loop_world import START, Killed, LoopWorld, make_config


@pytest.fixture
def world(tmp_path) -> LoopWorld:
    return LoopWorld(make_config(tmp_path))


def test_a_quiet_world_stays_idle_and_its_tick_is_on_record(world):
    result = world.tick(0)
    assert (result["state"], result["decision"]["action"]) == ("idle", "keep")
    with world.open_store() as store:
        assert store.find_last_tick() == START
    assert world.read()["trained"] == []


def test_an_alarm_trains_and_a_better_challenger_scores_in_the_shadow(world):
    result = world.tick(0, alarm=True)
    assert result["rollout"] == "2 shadow 0.0"
    assert world.list_steps() == ["idle -> training", "training -> judging", "judging -> shadow"]


def test_a_challenger_goes_through_every_stage_to_the_end_of_its_watch(world):
    world.tick(0, alarm=True)
    rollouts = [world.tick(day, alarm=False)["rollout"] for day in (1, 2, 3, 4, 5)]
    assert rollouts == ["2 canary 0.05", "2 canary 0.25", None, None, None]
    assert world.read()["champion"] == "2"
    assert world.list_steps()[3:] == [
        "shadow -> canary",
        "canary -> canary",
        "canary -> watching",
        "watching -> done",
    ]


def test_a_stage_lasts_its_days_however_often_the_loop_ticks(world):
    world.tick(0, alarm=True)
    assert [world.tick(day)["state"] for day in (0.2, 0.5, 0.9, 1.0)] == [
        "shadow",
        "shadow",
        "shadow",
        "canary",
    ]


def test_a_challenger_the_gate_turns_down_never_serves(world):
    result = world.tick(0, alarm=True, gate="reject")
    assert world.list_steps()[-1] == "judging -> rejected"
    assert (result["champion"], result["rollout"], result["state"]) == ("1", None, "idle")


def test_a_gate_that_cannot_tell_yet_is_asked_again(world):
    result = world.tick(0, alarm=True, gate="wait")
    assert result["state"] == "judging"
    assert result["waiting"] == {"drift:v1:2026-05-01": "gate says wait"}
    assert world.tick(1, gate="promote")["state"] == "shadow"
    assert len(world.read()["trained"]) == 1


def test_a_gate_that_can_never_tell_ends_the_attempt(world):
    world.tick(0, alarm=True, gate="wait")
    assert world.tick(5)["state"] == "judging"
    world.tick(5.1, alarm=False)
    assert world.list_steps()[-1] == "judging -> rejected"


def test_a_challenger_whose_files_are_damaged_fails(world):
    world.tick(0, alarm=True, gate="unusable")
    assert world.list_steps()[-1] == "judging -> failed"


def test_a_training_that_is_stopped_fails_and_says_why(world):
    result = world.tick(0, alarm="leak")
    assert result["transitions"][-1]["to_state"] == "failed"
    assert "a leak" in result["transitions"][-1]["reasons"][0]


@pytest.mark.parametrize(("days", "stage"), [(0, "shadow"), (1, "canary"), (2, "canary")])
def test_a_breach_beside_the_champion_takes_the_challenger_away(world, days, stage):
    world.tick(0, alarm=True)
    for day in range(1, days + 1):
        world.tick(day, alarm=False)
    result = world.tick(days + 0.5, arms="breach", alarm=False)
    assert world.list_steps()[-1] == f"{stage} -> rolled_back"
    assert (result["champion"], result["rollout"]) == ("1", None)
    assert result["transitions"][-1]["reasons"] == ["declines are breach"]


def test_a_stage_without_enough_evidence_goes_on_only_when_there_is_some(world):
    world.tick(0, alarm=True, arms="wait")
    assert world.tick(3)["waiting"] == {"drift:v1:2026-05-01": "declines are wait"}
    assert world.tick(3.1, arms="ok")["state"] == "canary"


def test_a_stage_that_never_sees_enough_is_given_up(world):
    world.tick(0, alarm=True, arms="wait")
    world.tick(5.1, alarm=False)
    assert world.list_steps()[-1] == "shadow -> rejected"
    assert world.read()["rollout"] is None


def promote(world: LoopWorld) -> None:
    """Bring version 2 to be watched, on day 3."""
    world.tick(0, alarm=True)
    for day in (1, 2, 3):
        world.tick(day, alarm=False)
    assert world.read()["champion"] == "2"


def test_a_new_champion_that_costs_more_is_taken_back(world):
    promote(world)
    result = world.tick(4, watch="breach")
    assert world.list_steps()[-1] == "watching -> rolled_back"
    assert result["champion"] == "1"
    assert world.read()["done"] == ["promote 2", "roll back 2"]


def test_a_way_back_that_was_only_intended_does_not_wait_for_a_look_around(world):
    promote(world)

    def die(name: str) -> None:
        if name == "after intending rolled_back":
            raise Killed

    with pytest.raises(Killed):
        LoopWorld(world.config, checkpoint=die).tick(4, watch="breach")
    assert world.read()["champion"] == "2"

    def fail(*_):
        raise ValueError("the log is damaged")

    parts = replace(world.parts, observe=fail)
    with pytest.raises(ValueError, match="the log is damaged"):
        advance_loop(world.config, now=START + pd.Timedelta(days=4), parts=parts)
    assert world.read()["champion"] == "1"


def test_a_champion_is_watched_while_the_next_challenger_is_on_its_way(world):
    promote(world)
    result = world.tick(4, alarm=True)
    assert [attempt["state"] for attempt in result["attempts"]] == ["watching", "shadow"]
    assert result["state"] == "shadow"


def test_taking_the_champion_back_ends_the_attempt_that_was_to_follow_it(world):
    promote(world)
    world.tick(4, alarm=True)
    result = world.tick(4.5, alarm=False, watch="breach")
    assert world.list_steps()[-2:] == ["watching -> rolled_back", "shadow -> superseded"]
    assert (result["champion"], result["rollout"], result["state"]) == ("1", None, "idle")


def test_the_next_promotion_ends_the_watch_of_the_one_before(tmp_path):
    world = LoopWorld(make_config(tmp_path, rollout__watch_days=30))
    promote(world)
    for day in (4, 5, 6, 7):
        world.tick(day, alarm=day == 4)
    assert world.list_steps()[-2:] == ["canary -> watching", "watching -> done"]
    assert world.read()["champion"] == "3"


@pytest.mark.parametrize("day", [0, 1, 2, 3])
def test_a_champion_moved_by_another_hand_ends_the_attempt_at_every_stage(world, day):
    world.tick(0, alarm=True)
    for passed in range(1, day + 1):
        world.tick(passed, alarm=False)
    times = {**world.read()["trained_times"], "9": START.isoformat()}
    result = world.tick(day + 0.1, champion="9", alarm=False, trained_times=times)
    assert world.list_steps()[-1].endswith("-> superseded")
    assert (result["champion"], result["rollout"], result["state"]) == ("9", None, "idle")


@pytest.mark.parametrize("rollout", [None, "7 canary 0.5"])
def test_a_rollout_changed_by_another_hand_is_left_as_it_is(world, rollout):
    world.tick(0, alarm=True)
    result = world.tick(1, rollout=rollout, alarm=False)
    assert world.list_steps()[-1] == "shadow -> superseded"
    assert result["rollout"] == rollout


def test_a_broken_feed_freezes_a_canary_and_is_named(world):
    world.tick(0, alarm=True)
    world.tick(1)
    result = world.tick(2, blocking=["ip is empty"], arms="breach")
    assert result["rollout"] == "2 canary 0.05"
    assert result["waiting"] == {"drift:v1:2026-05-01": "ip is empty"}
    assert result["decision"]["action"] == "blocked"
    assert "ip is empty" in result["transitions"][-1]["reasons"]


def test_a_thawed_stage_begins_anew(world):
    world.tick(0, alarm=True)
    world.tick(1)
    world.tick(1.9, blocking=["ip is empty"])
    assert world.tick(2.5, blocking=[])["rollout"] == "2 canary 0.05"
    assert world.tick(3.4)["rollout"] == "2 canary 0.05"
    assert world.tick(3.5)["rollout"] == "2 canary 0.25"


def test_a_broken_feed_does_not_train_however_loud_the_alarms(world):
    world.tick(0, alarm=True, blocking=["amount is in cents"])
    assert world.read()["trained"] == []


def test_stages_that_the_configuration_leaves_out_take_no_tick(tmp_path):
    config = make_config(
        tmp_path,
        rollout__gate=False,
        rollout__shadow_days=0,
        rollout__canary_shares=[],
        rollout__watch_days=0,
    )
    world = LoopWorld(config)
    result = world.tick(0, alarm=True, gate="reject")
    assert (result["champion"], result["state"]) == ("2", "idle")
    assert world.list_steps()[-2:] == ["judging -> watching", "watching -> done"]


def test_stages_taken_out_of_the_configuration_half_way_are_left_behind(world):
    world.tick(0, alarm=True)
    world.tick(1, alarm=False)
    world.config = make_config(world.config.runs, rollout__shadow_days=0, rollout__canary_shares=[])
    assert world.tick(2)["champion"] == "2"


def test_a_challenger_that_the_registry_refuses_leaves_the_champion(world):
    world.tick(0, alarm=True)
    for day in (1, 2, 3):
        world.tick(day, alarm=False, damaged="2")
    assert world.list_steps()[-1] == "watching -> failed"
    assert (world.read()["champion"], world.read()["rollout"]) == ("1", None)


def test_the_same_instant_twice_is_one_training(tmp_path):
    world = LoopWorld(make_config(tmp_path))
    world.tick(0, alarm=True, gate="reject")
    result = world.tick(0)
    assert len(world.read()["trained"]) == 1
    assert result["decision"]["action"] == "keep"


def test_a_second_tick_at_an_instant_keeps_the_record_of_what_it_trained(world):
    world.tick(0, alarm=True)
    world.tick(0)
    with world.open_store() as store:
        history = store.load_history(START + pd.Timedelta(days=1), num_days=1)
        assert [day.now for day in history.recent] == [START]
        assert store.load_decisions()[-1]["decision"]["action"] == "train"


def replay_quiet_days(world):
    for day in (*range(3, 15), 21):
        world.tick(day, alarm=False, is_confirmed=False)
    return world.read()["trained"]


def test_a_training_that_two_alarms_asked_for_is_followed_up_once(tmp_path):
    config = make_config(
        tmp_path, retraining__follow_up_days=7, retraining__triggers=["drift", "matured"]
    )
    world = LoopWorld(config)
    world.tick(0, alarm=True, is_confirmed=True, gate="reject")
    assert replay_quiet_days(world) == ["drift:v1:2026-05-01", "follow_up:v1:2026-05-08"]


def test_an_alarm_alone_is_not_followed_up(tmp_path):
    world = LoopWorld(make_config(tmp_path, retraining__follow_up_days=7))
    world.tick(0, alarm=True, gate="reject")
    assert replay_quiet_days(world) == ["drift:v1:2026-05-01"]


def test_what_the_floor_trained_is_not_followed_up_however_good_it_is(tmp_path):
    changes = {"retraining__follow_up_days": 2, "retraining__floor_days": 20}
    world = LoopWorld(make_config(tmp_path, **changes))
    for day in range(20, 30):
        world.tick(day, low=0.01)
    assert world.read()["trained"] == ["floor:v1:2026-05-21"]


def test_what_a_guard_took_back_is_not_followed_up(tmp_path):
    config = make_config(
        tmp_path,
        retraining__follow_up_days=7,
        retraining__triggers=["drift", "matured"],
        retraining__cooldown_days=20,
    )
    world = LoopWorld(config)
    world.tick(0, alarm=True, is_confirmed=True, low=0.01)
    world.tick(1, alarm=False, is_confirmed=False, arms="breach")
    assert world.tick(2, arms="ok")["state"] == "idle"
    assert replay_quiet_days(world) == ["drift:v1:2026-05-01"]


def test_follow_ups_go_on_as_long_as_challengers_are_shown_to_be_better(tmp_path):
    world = LoopWorld(make_config(tmp_path, retraining__follow_up_days=7))
    world.tick(0, alarm=True, low=0.01)
    for day in (7, 14):
        world.tick(day, alarm=False, low=0.01 if day == 7 else -0.01)
        for later in range(day + 1, day + 7):
            world.tick(later)
    world.tick(28)
    trained = [key.split(":")[0] for key in world.read()["trained"]]
    assert trained == ["drift", "follow_up", "follow_up"]


def test_the_loop_does_not_go_back_in_time(world):
    world.tick(2)
    with pytest.raises(ValueError, match="does not go back in time"):
        world.tick(1)


def test_a_training_that_takes_the_process_down_is_not_tried_for_ever(world):
    for _ in range(3):
        with pytest.raises(MemoryError):
            world.tick(0, alarm="memory")
    result = world.tick(0)
    assert result["transitions"][-1]["to_state"] == "failed"
    assert "begun 3 times" in result["transitions"][-1]["reasons"][0]


def test_every_step_keeps_its_reasons_and_its_evidence(world):
    world.tick(0, alarm=True)
    with world.open_store() as store:
        steps = store.load_transitions()
    assert "3 features drifted" in steps[0]["reasons"][0]
    assert steps[0]["evidence"]["alarms"]["drift"]["is_on"] is True
    assert steps[2]["evidence"]["num_frauds"] == 50
