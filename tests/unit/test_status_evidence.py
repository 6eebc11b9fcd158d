"""Reports and ticks become one record, and alarms have a beginning."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from configs.files import write_json
from monitoring.status_evidence import (
    QUALITY,
    Evidence,
    find_open_alarms,
    group_decisions,
    merge_evidence,
    read_report,
    read_tick,
)

REPORT = {
    "now": "2026-04-05T00:00:00+00:00",
    "champion": {"name": "lightgbm", "version": "3"},
    "quality": {
        "findings": [
            {"severity": "block", "message": "amount_log: 102 times the reference's"},
            {"severity": "warn", "message": "few rows"},
        ]
    },
    "drift": {"detected": True, "reason": "4 of 28 features drifted", "features": ["amount_log"]},
    "performance": {"is_degraded": False, "reason": "as expected", "average_precision": 0.6},
    "decision": {"action": "blocked", "reasons": ["not training on a broken feed"]},
}
OBSERVATION = {
    "now": "2026-04-05T00:00:00+00:00",
    "champion": "3",
    "blocking": [],
    "alarms": {
        "drift": {"is_on": True, "reason": "moved"},
        "matured": {"is_on": False, "reason": "fine"},
        "estimated": {"is_on": None, "reason": "too few rows"},
    },
    "evidence": {},
}
DECISION = {"action": "keep", "reasons": ["cooling down"], "held_by": "cooldown"}


def look(day: int, *alarms: str, champion: str = "3") -> Evidence:
    time = pd.Timestamp("2026-04-01", tz="UTC") + pd.Timedelta(days=day)
    return Evidence(time, champion, dict.fromkeys(alarms, f"day {day}"), "keep", ())


@pytest.fixture
def folder(tmp_path) -> Path:
    write_json(tmp_path / "monitor.json", REPORT)
    return tmp_path


def test_a_report_alarms_of_what_blocks_and_of_what_moved(folder):
    assert read_report(folder).alarms == {
        QUALITY: "amount_log: 102 times the reference's",
        "drift": "4 of 28 features drifted: amount_log",
    }


def test_a_report_that_names_its_alarms_is_taken_at_its_word(folder):
    alarms = {"drift": {"is_on": None, "reason": "?"}, "estimated": {"is_on": True, "reason": "e"}}
    write_json(folder / "monitor.json", REPORT | {"alarms": alarms})
    assert read_report(folder).alarms.keys() == {QUALITY, "estimated"}


def test_an_alarm_that_cannot_be_told_is_not_on():
    assert read_tick(OBSERVATION, DECISION).alarms == {"drift": "moved"}


def test_a_tick_says_what_held_training_back():
    assert read_tick(OBSERVATION, DECISION).held_by == "cooldown"


def test_of_one_instant_the_tick_decides_and_the_report_has_the_performance(folder):
    (merged,) = merge_evidence([read_report(folder)], [read_tick(OBSERVATION, DECISION)])
    assert merged.action == "keep"
    assert merged.performance["average_precision"] == 0.6


def test_evidence_is_in_time_order():
    merged = merge_evidence([look(3), look(1)], [look(2)])
    assert [item.time.day for item in merged] == [2, 3, 4]


def test_equal_decisions_in_a_row_are_one_and_a_change_of_anything_begins_another():
    quiet = [look(day) for day in range(3)]
    held = [replace(look(3), held_by="budget"), look(4), look(5, champion="4")]
    groups = group_decisions([*quiet, *held])
    assert [len(group) for group in groups] == [3, 1, 1, 1]
    assert groups[0] == quiet


def test_decisions_whose_reasons_differ_in_their_figures_alone_are_one():
    reasons = (
        "estimated average precision 0.738 [0.668, 0.807]; the next is due on 2026-06-02",
        "estimated average precision 0.744 [0.675, 0.811]; the next is due on 2026-06-03",
        "average precision unknown; the next is due on 2026-06-03",
    )
    looks = [replace(look(day), reasons=(text,)) for day, text in enumerate(reasons)]
    assert group_decisions(looks) == [looks[:2], looks[2:]]


def test_an_alarm_is_open_since_it_last_began():
    evidence = [look(0, "drift"), look(1), look(2, "drift"), look(3, "drift")]
    (alarm,) = find_open_alarms(evidence, champion="3")
    assert (alarm.since.day, alarm.message) == (3, "day 3")


def test_an_alarm_that_went_off_again_is_not_open():
    assert find_open_alarms([look(0, "drift"), look(1)], champion="3") == []


def test_alarms_about_a_version_that_was_replaced_are_closed_and_those_of_the_feed_are_not():
    alarms = find_open_alarms([look(0, "drift", QUALITY)], champion="4")
    assert [alarm.name for alarm in alarms] == [QUALITY]


def test_an_alarm_about_the_version_before_is_not_the_beginning_of_this_ones():
    evidence = [look(0, "drift", champion="2"), look(1, "drift")]
    (alarm,) = find_open_alarms(evidence, champion="3")
    assert alarm.since.day == 2


def test_without_evidence_there_is_no_alarm():
    assert find_open_alarms([], champion="3") == []


def test_decisions_about_different_columns_stay_apart():
    reasons = ("customer_tx_count_24h is empty, 0.3", "customer_tx_count_1h is empty, 0.4")
    looks = [replace(look(day), reasons=(text,)) for day, text in enumerate(reasons)]
    assert group_decisions(looks) == [[looks[0]], [looks[1]]]
