"""The status page is one well-formed file that shows what the status holds and nothing else."""

import copy
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from monitoring.status_chart import HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_history
from monitoring.status_page import write_status_page
from monitoring.status_terminal import print_status

POINT = {"champion": "2", "average_precision": 0.6, "low": 0.5, "high": 0.7, "expected": 0.65}
HISTORY = [POINT | {"time": f"2026-04-0{day}T00:00:00+00:00"} for day in (1, 2, 4)]
LEAST = {
    "time": "2026-11-30T10:00:00+00:00",
    "data_time": None,
    "champion": {
        "version": "2",
        "kind": "lightgbm",
        "since": "2026-04-01T00:00:00+00:00",
        "trained_until": "2026-03-20T00:00:00+00:00",
        "test_average_precision": None,
        "previous": None,
    },
    "rollout": None,
    "service": {"url": "http://127.0.0.1:3000", "answers": False},
    "performance": None,
    "alarms": [],
    "attempts": [],
    "decisions": [],
    "transitions": [],
    "history": [],
    "notes": ["nothing was monitored yet"],
    "wrote": [],
    "next": "nothing to do",
}
MORE = {
    "data_time": "2026-04-05T00:00:00+00:00",
    "rollout": {"version": "3", "stage": "canary", "share": 0.25},
    "service": {
        "url": "http://127.0.0.1:3000",
        "answers": True,
        "model_version": "2",
        "refused": None,
        "breaker": "closed",
        "transactions": {"scored": 1200},
        "prediction_log": {"written": 1200, "dropped": 0},
    },
    "performance": {
        "as_of": "2026-04-05T00:00:00+00:00",
        "average_precision": 0.61,
        "average_precision_interval": [0.52, 0.71],
        "cost_per_1000": 412.5,
        "cost_per_1000_interval": [380.0, 455.0],
        "immature_share": 0.43,
        "num_predictions": 2000,
        "num_matured": 1140,
        "num_frauds": 61,
    },
    "alarms": [
        {
            "name": "drift",
            "message": "amount <b>moved</b>",
            "since": "2026-04-03T00:00:00+00:00",
            "advice": "see the report",
        }
    ],
    "attempts": [
        {
            "trigger_key": "drift:v2:2026-04-03",
            "challenger": "3",
            "state_time": "2026-04-04T00:00:00+00:00",
            "is_frozen": False,
            "stages": ["training", "judging", "canary 25%", "watching", "done"],
            "stage": "canary 25%",
        }
    ],
    "decisions": [
        {
            "time": "2026-04-05T00:00:00+00:00",
            "first_time": "2026-04-02T00:00:00+00:00",
            "count": 4,
            "champion": "2",
            "action": "keep",
            "held_by": "attempt",
            "reasons": ["a challenger is on its way"],
        }
    ],
    "transitions": [
        {
            "time": "2026-04-04T00:00:00+00:00",
            "from_state": "judging",
            "to_state": "canary",
            "trigger_key": "drift:v2:2026-04-03",
            "who": "ann (command)",
            "reasons": ["it ranks better"],
        }
    ],
    "history": HISTORY,
}


class Tags(HTMLParser):
    """Collects tags, and checks that each one that must be closed is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, _attrs):
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def render(tmp_path):
    def render_page(status: dict) -> str:
        write_status_page(tmp_path / "status.html", status=status)
        return (tmp_path / "status.html").read_text(encoding="utf-8")

    return render_page


@pytest.mark.parametrize("status", [LEAST, LEAST | MORE], ids=["least", "whole"])
def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(render, status):
    page = render(status)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert re.findall(r"(?:src|href|url)\s*[=(]", page) == []


def test_the_page_shows_every_part_of_the_status(render):
    page = " ".join(render(LEAST | MORE).split())
    for text in (
        "serves since 2026-04-01",
        "0.520 to 0.710",
        "412.5",
        "43 %",
        "since 2026-04-03",
        "answers 25 % of the customers",
        "held by attempt",
        "by ann (command)",
        'class="here" aria-current="step">canary 25%',
        "<dd>1,200</dd>",
    ):
        assert text in page


def test_the_page_says_which_times_are_the_clocks_and_which_the_datas(render):
    page = " ".join(render(LEAST | MORE).split())
    for text in (
        "As of 2026-11-30 10:00 by the clock; the data were last looked at as of 2026-04-05.",
        "serves since 2026-04-01 (clock)",
        "trained on days until 2026-03-20 (data)",
        "61 frauds, as of 2026-04-05 (data)",
    ):
        assert text in page


def test_the_terminal_says_which_times_are_the_clocks_and_which_the_datas(capsys):
    print_status(LEAST | MORE)
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "as of 2026-11-30 10:00 (clock) last look 2026-04-05 00:00 (data)",
        "serves since 2026-04-01 00:00 (clock), trained on days until 2026-03-20 00:00 (data)",
        "in canary 25% since 2026-04-04 00:00 (data)",
        "time (data) decision",
        "since (data) alarm",
    ):
        assert part in text


def test_a_decision_taken_several_times_in_a_row_is_one_line_with_its_count(render, capsys):
    page = " ".join(render(LEAST | MORE).split())
    assert "<time>2026-04-02 to 2026-04-05</time>" in page
    assert "<small>4 times</small>" in page
    print_status(LEAST | MORE)
    text = capsys.readouterr().out
    assert "2026-04-02 00:00" in text
    assert "to 2026-04-05 00:00" in text
    assert "keep, 4 times" in text


def test_a_champion_that_is_watched_is_no_challenger_on_its_way(render):
    watched = MORE["attempts"][0] | {"stage": "watching"}
    page = render(LEAST | MORE | {"alarms": [], "attempts": [watched]})
    assert "Nothing is wrong; the new champion is being watched." in page
    page = render(LEAST | MORE | {"alarms": [], "attempts": [watched, *MORE["attempts"]]})
    assert "a challenger is on its way" in page


def test_what_a_message_says_is_text_and_not_markup(render):
    page = render(LEAST | MORE)
    assert "amount &lt;b&gt;moved&lt;/b&gt;" in page
    assert "<b>moved" not in page


def test_a_broken_feed_is_the_verdict_whatever_else_is_open(render):
    quality = MORE["alarms"][0] | {"name": "quality"}
    page = render(LEAST | MORE | {"alarms": [*MORE["alarms"], quality]})
    assert "The feed is broken" in page
    assert "<title>Fraud: feed broken</title>" in page


def test_nothing_is_called_right_before_anything_was_looked_at(render):
    assert "nothing was monitored yet" in render(LEAST)
    assert "Nothing is wrong" not in render(LEAST)


def test_the_page_has_colours_of_its_own_for_the_dark(render):
    assert "prefers-color-scheme: dark" in render(LEAST)


def test_a_page_is_made_without_changing_the_status(render):
    status = copy.deepcopy(LEAST | MORE)
    render(status)
    assert status == LEAST | MORE


def test_the_terminal_shows_the_same_facts(capsys):
    print_status(LEAST | MORE)
    text = " ".join(capsys.readouterr().out.split())
    for part in ("version 3 answers 25%", "0.520 to 0.710", "43% of 2,000", "amount <b>moved</b>"):
        assert part in text


def test_the_terminal_says_what_is_missing(capsys):
    print_status(LEAST)
    assert "note nothing was monitored yet" in " ".join(capsys.readouterr().out.split())


def test_points_lie_in_time_and_height_where_their_numbers_are():
    drawn = ET.fromstring(draw_history(HISTORY))
    places = [float(dot.get("cx")) for dot in drawn.iter("circle")]
    width = WIDTH - LEFT - RIGHT
    assert places == pytest.approx([LEFT, LEFT + width / 3, LEFT + width], abs=0.1)
    heights = {dot.get("cy") for dot in drawn.iter("circle")}
    assert len(heights) == 1
    assert TOP < float(heights.pop()) < HEIGHT


def test_a_higher_average_precision_is_drawn_higher():
    rising = [HISTORY[0], HISTORY[1] | {"average_precision": 0.69}]
    low, high = (float(dot.get("cy")) for dot in ET.fromstring(draw_history(rising)).iter("circle"))
    assert high < low


def test_a_change_of_the_champion_is_marked_where_it_is_first_seen():
    changed = [*HISTORY[:2], HISTORY[2] | {"champion": "5"}]
    drawn = ET.fromstring(draw_history(changed))
    (mark,) = (line for line in drawn.iter("line") if line.get("class") == "mark")
    assert float(mark.get("x1")) == WIDTH - RIGHT
    assert "v5" in [text.text for text in drawn.iter("text")]


def test_what_is_not_known_is_no_point():
    unknown = HISTORY[1] | {"average_precision": None, "low": None, "high": None}
    drawn = ET.fromstring(draw_history([HISTORY[0], unknown, HISTORY[2]]))
    assert len(list(drawn.iter("circle"))) == 2


def test_one_point_is_no_history():
    assert draw_history(HISTORY[:1]) is None
