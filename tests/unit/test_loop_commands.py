"""``fraud tick`` and ``fraud rollback`` as a person calls them, on the world in a file."""

import json
import sqlite3

import pandas as pd
import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

import loop_commands
import monitoring.loop_wiring
from fraud_commands import app
from monitoring.loop_machine import preview_decision
from monitoring.loop_rollback import explain_rollback, record_rollback
from monitoring.loop_tables import open_database
from serving.champion_changes import run_rollback
from tests.unit.loop_world import QUICK, START, LoopWorld, make_config


@pytest.fixture
def world(tmp_path, monkeypatch) -> LoopWorld:
    world = LoopWorld(make_config(tmp_path))
    world.write()
    monkeypatch.setattr(monitoring.loop_wiring, "build_parts", lambda _: world.parts)
    return world


def call(world: LoopWorld, *arguments: str):
    settings = [f"--set={name}={json.dumps(value)}" for name, value in QUICK.items()]
    runs = world.config.runs
    asked = ["tick", "--runs", str(runs), "--json", str(runs / "tick.json"), *settings, *arguments]
    answer = CliRunner().invoke(app, asked)
    return answer, json.loads((runs / "tick.json").read_text()) if answer.exit_code == 0 else None


def test_a_tick_writes_its_result_and_says_where_its_database_is(world):
    world.write(alarm=True)
    answer, result = call(world, "--now", START.isoformat())
    assert answer.exit_code == 0, answer.output
    assert result["state"] == "shadow"
    assert result["wrote"][0] == str(world.config.runs / "retraining.db")
    assert [step["to_state"] for step in result["transitions"]] == ["training", "judging", "shadow"]


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(world):
    world.write(alarm=True)
    before = world.read()
    _, result = call(world, "--now", START.isoformat(), "--dry-run")
    assert result["decision"]["action"] == "train"
    assert world.read() == before
    assert not (world.config.runs / "retraining.db").exists()


def test_a_dry_run_knows_the_attempt_that_is_under_way(world):
    world.tick(0, alarm=True)
    result = preview_decision(world.config, now=START + pd.Timedelta(days=1), parts=world.parts)
    assert (result["state"], result["decision"]["held_by"]) == ("shadow", "attempt")


def test_a_tick_without_any_prediction_says_what_to_do(world):
    answer, _ = call(world)
    assert isinstance(answer.exception, FileNotFoundError)
    assert "throughline fraud serve" in str(answer.exception)


def test_a_loop_over_an_instant_that_stands_still_is_refused(world):
    answer, _ = call(world, "--now", START.isoformat(), "--loop", "1")
    assert "stands still" in str(answer.exception)


NO_ROLLOUT = {"before": None, "after": None}
ROLLED_BACK = {
    "champion": {"version": "1", "before": "2"},
    "dropped": None,
    "rollout": NO_ROLLOUT,
}
DROPPED = {
    "champion": {"version": "1", "before": "1"},
    "dropped": "2 canary 0.25",
    "rollout": {"before": "2 canary 0.25", "after": None},
}


def test_a_rollout_ended_by_hand_is_a_step_of_its_attempt(world):
    world.tick(0, alarm=True)
    assert record_rollback(world.config, DROPPED, who="kim") is None
    with world.open_store() as store:
        step = store.load_transitions()[-1]
    assert (step["from_state"], step["to_state"], step["who"]) == ("shadow", "superseded", "kim")
    assert step["reasons"] == ["the rollout '2 canary 0.25' was ended by hand"]


def test_a_rollout_ended_by_hand_leaves_the_watch_of_the_champion_before_it(world):
    world.tick(0, alarm=True)
    for day in (1, 2, 3, 4):
        world.tick(day, alarm=day == 4)
    record_rollback(world.config, {**DROPPED, "dropped": "3 shadow 0.0"}, who="kim")
    with world.open_store() as store:
        assert [item.state for item in store.load_attempts()] == ["watching", "superseded"]


def test_a_rollback_with_nothing_under_way_is_on_record_too(world):
    world.tick(0)
    record_rollback(world.config, ROLLED_BACK, who="kim")
    with world.open_store() as store:
        (step,) = store.load_transitions()
    assert (step["attempt_id"], step["who"]) == (None, "kim")


def test_a_rollback_without_a_loop_makes_no_database(world):
    assert record_rollback(world.config, ROLLED_BACK, who="kim") is None
    assert not (world.config.runs / "retraining.db").exists()


def test_a_rollback_that_moves_nothing_is_no_step(world):
    world.tick(0)
    nothing = {**ROLLED_BACK, "champion": {"version": "1", "before": "1"}}
    assert record_rollback(world.config, nothing, who="kim") is None
    with world.open_store() as store:
        assert store.load_transitions() == []


def test_a_rollback_that_cannot_be_recorded_says_why(world):
    (world.config.runs / "retraining.db").write_text("no database at all, but a note of somebody's")
    assert "not a database" in record_rollback(world.config, ROLLED_BACK, who="kim")


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (
            ROLLED_BACK,
            [
                "served before  version 2",
                "serves now     version 1",
                "done           version 1 is the champion instead; a running service follows",
            ],
        ),
        (
            DROPPED,
            [
                "served before  version 1, with version 2 in the canary of 25%",
                "serves now     version 1",
                "done           the rollout of version 2 is ended, the champion stays; a running",
            ],
        ),
        (
            {"champion": {"version": "1", "before": "1"}, "dropped": None, "rollout": NO_ROLLOUT},
            [
                "served before  version 1",
                "serves now     version 1",
                "done           nothing: version 1 was the champion already",
            ],
        ),
        (
            {
                **ROLLED_BACK,
                "rollout": {"before": "3 canary 0.05", "after": "3 canary 0.05"},
            },
            [
                "served before  version 2, with version 3 in the canary of 5%",
                "serves now     version 1, with version 3 in the canary of 5%",
                "done           version 1 is the champion instead; a running service follows",
                "note           the rollout goes on; the loop's next tick ends it, or `throughline",
            ],
        ),
    ],
    ids=["champion", "rollout", "nothing", "under a canary"],
)
def test_a_rollback_says_what_served_what_serves_what_was_done_and_what_is_next(
    tmp_path, monkeypatch, result, lines
):
    next_ = "throughline fraud status"
    whole = {**result, "wrote": ["admin.jsonl"], "next": next_}
    monkeypatch.setattr("serving.champion_changes.run_rollback", lambda *_, **__: dict(whole))
    json_file = tmp_path / "result.json"
    asked = ["rollback", "--runs", str(tmp_path), "--json", str(json_file)]
    answer = CliRunner(env={"COLUMNS": "200"}).invoke(app, asked)
    printed = answer.output.splitlines()
    assert [line[: len(start)] for line, start in zip(printed, lines, strict=False)] == lines
    assert printed[len(lines) :] == [
        "wrote  admin.jsonl",
        f"wrote  {json_file}",
        f"next:  {next_} --runs {tmp_path}",
    ]
    written = json.loads(json_file.read_text())
    assert {name: written[name] for name in result} == result
    assert written["unrecorded"] is None


def test_a_rollback_that_the_loops_record_lacks_says_so():
    facts = explain_rollback({**ROLLED_BACK, "unrecorded": "file is not a database"})
    assert facts["unrecorded"].startswith("the loop's record lacks it (file is not a database)")


def test_an_address_without_a_driver_says_what_to_install():
    with (
        pytest.raises(ValueError, match="install psycopg"),
        open_database("postgresql+nodriver://x@h/d"),
    ):
        pass


@pytest.mark.parametrize(
    "url",
    ["kim:secret@h", "postgresql+nodriver://kim:secret@h/d", "postgresql://kim@h:secret/d"],
)
def test_an_error_about_an_address_does_not_print_its_password(url):
    with pytest.raises(ValueError, match="database_url") as caught, open_database(url):
        pass
    assert "secret" not in str(caught.value)


def fail_in_turn(monkeypatch, world: LoopWorld, *errors: Exception) -> None:
    """Have the first ticks fail, one with each error, and Ctrl-C come after one more."""
    left = list(errors)

    def build_parts(_: object):
        if left:
            raise left.pop(0)
        return world.parts

    def sleep(_: float, slept: list[None] = []) -> None:  # noqa: B006 - counts its calls
        slept.append(None)
        if len(slept) > len(errors):
            raise KeyboardInterrupt

    monkeypatch.setattr(monitoring.loop_wiring, "build_parts", build_parts)
    monkeypatch.setattr(loop_commands.time, "sleep", sleep)


ERRORS = (
    ValueError("bad number"),
    FileNotFoundError("no file"),
    RuntimeError("no luck"),
    OSError("no disk"),
    OperationalError("select 1", {}, Exception("no database")),
)
WORDS = ("bad number", "no file", "no luck", "no disk", "no database")


def test_a_loop_goes_on_after_ticks_that_failed_and_ctrl_c_ends_it(world, monkeypatch):
    fail_in_turn(monkeypatch, world, *ERRORS)
    answer, _ = call(world, "--now", "clock", "--loop", "1")
    assert isinstance(answer.exception, SystemExit)
    assert answer.exit_code == 130
    said = [line for line in answer.output.splitlines() if "this tick failed" in line]
    assert [text in line for text, line in zip(WORDS, said, strict=True)] == [True] * 5
    assert json.loads((world.config.runs / "tick.json").read_text())["state"] == "idle"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_single_tick_that_fails_is_an_error(world, monkeypatch, error):
    fail_in_turn(monkeypatch, world, error)
    answer, _ = call(world, "--now", "clock")
    assert answer.exception is error


def test_the_loops_database_can_be_read_while_a_tick_is_at_work(world):
    read: list[int] = []

    def look(name: str) -> None:
        if name == "before training":
            with sqlite3.connect(world.config.runs / "retraining.db") as reader:
                read.extend(reader.execute("select count(*) from attempts").fetchone())
            reader.close()

    LoopWorld(world.config, checkpoint=look).tick(0, alarm=True)
    assert read == [1]


def test_a_rollback_in_a_folder_without_a_champion_leaves_nothing_there(tmp_path):
    runs = tmp_path / "mistyped"
    with pytest.raises(FileNotFoundError, match="no champion"):
        run_rollback(make_config(runs))
    assert not runs.exists()
