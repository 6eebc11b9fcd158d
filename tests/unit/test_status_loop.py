"""The loop's database is read as it is, and none is made by looking."""

import pandas as pd
import pytest
from sqlalchemy import insert

from configs.schema import load_fraud_config
from monitoring.loop_tables import (
    attempts,
    get_database_url,
    open_database,
    ticks,
    transitions,
)
from monitoring.status import advise
from monitoring.status_loop import read_loop, read_tick_looks

NOW = pd.Timestamp("2026-04-05", tz="UTC")
DAY = pd.Timedelta(days=1)


@pytest.fixture
def config(tmp_path):
    return load_fraud_config(changes={"runs": str(tmp_path)})


@pytest.fixture
def write(config):
    """Write rows into the loop's database."""

    def write_rows(table, **values) -> None:
        with (
            open_database(get_database_url(config.runs, None)) as engine,
            engine.begin() as connection,
        ):
            connection.execute(insert(table).values(**values))

    return write_rows


def add_tick(write, time, *, evidence=None) -> None:
    observation = {"now": time.isoformat(), "champion": "1", "blocking": [], "alarms": {}}
    write(
        ticks,
        time=time,
        day=f"{time:%Y-%m-%d}",
        recorded_time=time,
        observation={**observation, "evidence": evidence or {}},
        decision={"action": "keep", "reasons": ["quiet"]},
    )


def add_attempt(write, key: str, state: str) -> None:
    write(
        attempts,
        **{"trigger_key": key, "trigger": "drift", "champion": "1", "challenger": "2"},
        **{"state": state, "step": 0, "share": 0.0, "num_tries": 1},
        **{"is_applied": True, "is_frozen": False, "opened_time": NOW, "state_time": NOW},
    )


def test_without_a_database_it_says_what_makes_one_and_makes_none(config):
    record = read_loop(config, num_ticks=5, num_transitions=5)
    assert "throughline fraud tick" in record.note
    assert list(config.runs.iterdir()) == []
    assert list(read_tick_looks(config)) == []


def test_a_database_that_cannot_be_read_is_a_note_and_no_failure(config):
    (config.runs / "retraining.db").write_text("no database" * 1000)
    record = read_loop(config, num_ticks=5, num_transitions=5)
    assert "cannot be read" in record.note
    assert "file is not a database" in record.note


def test_the_newest_ticks_come_in_time_order(config, write):
    for day in range(4):
        add_tick(write, NOW + day * DAY)
    record = read_loop(config, num_ticks=2, num_transitions=5)
    assert [tick.time for tick in record.ticks] == [NOW + 2 * DAY, NOW + 3 * DAY]


def test_attempts_that_have_ended_are_left_out(config, write):
    for key, state in (("a", "done"), ("b", "canary"), ("c", "rejected"), ("d", "watching")):
        add_attempt(write, key, state)
    record = read_loop(config, num_ticks=5, num_transitions=5)
    assert [attempt.trigger_key for attempt in record.attempts] == ["b", "d"]


def test_the_newest_transitions_come_first(config, write):
    for day, state in enumerate(("training", "judging", "shadow")):
        write(
            transitions,
            **{"from_state": "idle", "to_state": state, "step": 0, "time": NOW + day * DAY},
            **{"recorded_time": NOW, "who": "tick", "reasons": [state], "evidence": {}},
        )
    record = read_loop(config, num_ticks=5, num_transitions=2)
    assert [step["to_state"] for step in record.transitions] == ["shadow", "judging"]
    assert record.transitions[0]["time"] == "2026-04-07T00:00:00+00:00"


def test_a_ticks_look_is_its_evidence_with_what_was_decided_on_it(config, write):
    add_tick(write, NOW, evidence={"rows": 3})
    add_tick(write, NOW + DAY)
    ((name, look),) = read_tick_looks(config)
    assert name == "tick 2026-04-05T00:00:00+00:00"
    assert look == {"rows": 3, "decision": {"action": "keep", "reasons": ["quiet"]}}


@pytest.mark.parametrize(
    ("alarms", "attempts_under_way", "advice"),
    [
        ([], [], "nothing to do"),
        ([], [{"trigger_key": "b"}], "throughline fraud tick"),
        ([{"name": "drift"}], [], "throughline fraud tick"),
    ],
)
def test_a_tick_is_advised_while_an_alarm_is_on_or_an_attempt_is_under_way(
    alarms, attempts_under_way, advice
):
    assert advise({"alarms": alarms, "attempts": attempts_under_way}) == advice
