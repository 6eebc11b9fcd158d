"""The loop's steps become the demo's story: each verdict under who gave it, to the last day."""

import pandas as pd
import pytest

import fraud_demo_loop
from fraud_demo import list_facts
from fraud_demo_calendar import Story
from fraud_demo_loop import LoopStory
from tests.unit.loop_world import START, LoopWorld, make_config

DAY = pd.Timedelta(days=1)


@pytest.fixture
def world(tmp_path) -> LoopWorld:
    return LoopWorld(make_config(tmp_path))


@pytest.fixture
def loop(world, monkeypatch) -> LoopStory:
    """The loop of a world without a service: nothing is scored, and promotions are seen at once."""
    monkeypatch.setattr(fraud_demo_loop, "build_parts", lambda _: world.parts)
    seen = {"version": "2", "seconds": 0.1}
    monkeypatch.setattr(fraud_demo_loop, "wait_for_version", lambda *_: seen)
    return LoopStory(world.config, "http://127.0.0.1:3000", lambda **_: pd.DataFrame(), Story())


def live(loop: LoopStory, *, since: int, until: int) -> dict[str, str]:
    """Live through days, counted from the first tick; return all that was told, by title."""
    loop.live_through(START + (since - 1) * DAY, START + (until - 1) * DAY)
    told = loop.story.timeline
    return {event["title"]: event["detail"].partition(": ")[2] for event in told}


def test_each_verdict_stands_under_who_gave_it_and_every_canary_is_told(world, loop):
    world.write(alarm=True)
    live(loop, since=0, until=1)
    world.write(alarm=False)
    told = live(loop, since=1, until=7)
    assert told == {
        "A challenger is trained": "drift alarm on 1 of the last 1 days: 3 features drifted",
        "The challenger goes to the gate": "version 2 was trained as of 2026-05-01 06:00",
        "The gate lets it on: into the shadow": "gate says promote",
        "The shadow lets it on: canary of 5 %": "declines are ok",
        "The canary lets it on: canary of 25 %": "declines are ok",
        "The canary lets it on: promotion": "declines are ok",
        "The watch ends": "it was watched for 2 days; cost is ok",
    }


@pytest.mark.parametrize(
    ("change", "days", "title"),
    [
        ({"gate": "no"}, 1, "Turned down by the gate"),
        ({"arms": "breach"}, 2, "Taken back by the shadow"),
        ({"watch": "breach"}, 5, "Taken back by the watch"),
    ],
)
def test_what_ends_an_attempt_is_told_by_who_ended_it(world, loop, change, days, title):
    world.write(alarm=True, **change)
    assert title in live(loop, since=0, until=days)


def test_a_freeze_and_a_thaw_begin_no_stage_anew(world, loop):
    world.write(alarm=True)
    live(loop, since=0, until=1)
    world.write(alarm=False, blocking=["a column is empty"])
    live(loop, since=1, until=2)
    world.write(blocking=[])
    live(loop, since=2, until=3)
    titles = [event["title"] for event in loop.story.timeline]
    assert titles == [
        "A challenger is trained",
        "The challenger goes to the gate",
        "The gate lets it on: into the shadow",
    ]


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (1, "version 1 serves; in shadow until 2026-05-02 06:00"),
        (4, "version 2 serves; watched until 2026-05-06 06:00"),
        (7, "version 2 serves; nothing is under way"),
    ],
)
def test_the_last_line_says_what_serves_and_what_is_waited_for(world, loop, days, said):
    world.write(alarm=True)
    live(loop, since=0, until=1)
    world.write(alarm=False)
    live(loop, since=1, until=days)
    loop.close(START + (days - 1) * DAY)
    assert loop.story.timeline[-1] == {
        "time": (START + (days - 1) * DAY).isoformat(),
        "title": "The history ends",
        "detail": said,
    }


def test_the_terminal_shows_the_story_a_line_an_event_with_its_date():
    story = Story()
    story.tell(START, "First champion", "LightGBM, version 1, starts to serve")
    story.tell(START + DAY, "The history ends", "version 1 serves; nothing is under way")
    facts = list_facts({"seconds_total": 3.0, "timeline": story.timeline})
    assert facts["timeline"].splitlines() == [
        "2026-05-01  First champion",
        "2026-05-02  The history ends",
    ]
