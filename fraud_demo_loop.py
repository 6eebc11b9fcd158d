"""Days are served and ticked one after another, until the history's next instant in the story.

The loop is the one of ``throughline fraud tick``; the demo only turns the clock. What it decides is
its own affair: the story tells it, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from fraud_demo_calendar import Story
from monitoring.fraud_retraining import describe_retraining
from monitoring.loop_machine import advance_loop
from monitoring.loop_store import LoopStore
from monitoring.loop_tables import get_database_url, open_database
from monitoring.loop_wiring import build_parts
from monitoring.retrain import GateVerdict
from serving.client import wait_for_version
from training.fraud import run_train

Replay = Callable[..., pd.DataFrame]
"""Score the history from ``since`` to ``until`` over HTTP; answers, one row per transaction."""

DAY = pd.Timedelta(days=1)
JUDGES = {
    "judging": "the gate",
    "shadow": "the shadow",
    "canary": "the canary",
    "watching": "the watch",
}
TITLES = {
    "training": "A challenger is trained",
    "judging": "The challenger goes to the gate",
    "failed": "The attempt failed",
    "superseded": "Another hand was faster",
}
"""Of the steps that no judge takes."""


@dataclass
class LoopStory:
    """The loop beside a running service.

    Attributes:
        config: The fraud problem's configuration.
        url: The service, which is never restarted.
        replay: Scores days of the history.
        story: Gains each step's seconds and events.
        ticks: What each tick gave, as ``advance_loop``.
        seen: When the service took the last promotion up, as ``wait_for_version``.
        places: State and canary step in which each attempt was told last, by trigger key.
    """

    config: FraudConfig
    url: str
    replay: Replay
    story: Story
    ticks: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Any] | None = None
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    def live_through(self, since: pd.Timestamp, until: pd.Timestamp) -> None:
        """Serve each day, and tick at its end."""
        start = since
        while start < until:
            end = min(start + DAY, until)
            with self.story.step("replay"):
                self.replay(since=start, until=end)
            with self.story.step("the loop"):
                self._tick(end)
            start = end

    def _tick(self, now: pd.Timestamp) -> None:
        tick = advance_loop(self.config, now=now, parts=build_parts(run_train))
        for step in tick["transitions"]:
            self._tell(now, step)
        if any(step["to_state"] == "watching" for step in tick["transitions"]):
            self.seen = wait_for_version(self.url, tick["champion"])
        self.ticks.append(tick)

    def _tell(self, now: pd.Timestamp, step: dict[str, Any]) -> None:
        key, place = step["trigger_key"], (step["to_state"], step["step"])
        if self.places.get(key) == place:
            return  # frozen or thawed where it stands
        self.places[key] = place
        title = describe_step(step, shares=self.config.rollout.canary_shares)
        self.story.tell(now, title, f"{key}: {'; '.join(step['reasons'])}")

    def close(self, now: pd.Timestamp) -> None:
        """Tell what serves in the end, and what the loop still waits for."""
        last = self.ticks[-1]
        rest = "; ".join(last["waiting"].values()) or "nothing is under way"
        self.story.tell(now, "The history ends", f"version {last['champion']} serves; {rest}")

    def describe(self, *, first: str) -> dict[str, Any]:
        """Return what came of it, as ``monitoring.fraud_retraining.describe_retraining``.

        Args:
            first: The version that served in the beginning.

        Returns:
            Of the attempt that came furthest, or ``triggered`` false; besides, ``asked_for_by``
            (what asked for its training, in words; ``None`` without one), ``decisions``: each
            tick's ``now``, ``action`` and ``reasons``, and ``transitions``.
        """
        steps = [step for tick in self.ticks for step in tick["transitions"]]
        best = _find_best(steps)
        is_promoted = best is not None and best["trigger_key"] in _find_promoted(steps)
        return {
            **_describe_attempt(best, first, self._list_challengers(), is_promoted=is_promoted),
            "asked_for_by": best and _find_wish(steps, best["trigger_key"]),
            "decisions": [
                {
                    "now": tick["now"],
                    "action": tick["decision"]["action"],
                    "reasons": tick["decision"]["reasons"],
                    "state": tick["state"],
                }
                for tick in self.ticks
            ],
            "transitions": [
                {name: value for name, value in step.items() if name != "evidence"}
                for step in steps
            ],
        }

    def _list_challengers(self) -> dict[str, str | None]:
        """Read which version each attempt trained, by trigger key."""
        url = get_database_url(self.config.runs, self.config.retraining.database_url)
        with open_database(url) as engine:
            attempts = LoopStore(engine).load_attempts()
        return {attempt.trigger_key: attempt.challenger for attempt in attempts}


def describe_step(step: Mapping[str, Any], *, shares: Sequence[float]) -> str:
    """Say in a title who let an attempt on or ended it, which the step's reasons explain.

    Args:
        step: As of ``LoopStore.load_transitions``.
        shares: Of the customers, canary by canary.

    >>> step = {"from_state": "shadow", "to_state": "canary", "step": 0}
    >>> describe_step(step, shares=[0.05, 0.25])
    'The shadow lets it on: canary of 5 %'
    """
    state = step["to_state"]
    if state in TITLES:
        return TITLES[state]
    judge = JUDGES[step["from_state"]]
    match state:
        case "rejected":
            return f"Turned down by {judge}"
        case "rolled_back":
            return f"Taken back by {judge}"
        case "done":
            return f"{judge.capitalize()} ends"
        case "canary":
            place = f"canary of {100 * shares[step['step']]:g} %"
        case _:
            place = {"shadow": "into the shadow", "watching": "promotion"}[state]
    return f"{judge.capitalize()} lets it on: {place}"


def _find_best(steps: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the gate's step of the attempt that was promoted, else of the last one judged."""
    judged = [step for step in steps if step["from_state"] == "judging"]
    promoted = [step for step in judged if step["trigger_key"] in _find_promoted(steps)]
    return next(iter([*promoted[:1], *judged[-1:]]), None)


def _find_promoted(steps: Sequence[dict[str, Any]]) -> set[str]:
    return {step["trigger_key"] for step in steps if step["to_state"] == "watching"}


def _find_wish(steps: Sequence[dict[str, Any]], trigger_key: str) -> str:
    """Say what asked for a training: the reasons of the step that began it."""
    began = (step for step in steps if step["trigger_key"] == trigger_key)
    trigger = trigger_key.partition(":")[0]
    return f"{trigger}: {'; '.join(next(began)['reasons'])}"


def _describe_attempt(
    judged: dict[str, Any] | None,
    first: str,
    challengers: Mapping[str, str | None],
    *,
    is_promoted: bool,
) -> dict[str, Any]:
    if judged is None:
        return describe_retraining(None, champion=first)
    verdict = _read_verdict(judged, is_promoted=is_promoted)
    key = judged["trigger_key"]
    return describe_retraining(verdict, champion=first, challenger=challengers[key])


def _read_verdict(step: dict[str, Any], *, is_promoted: bool) -> GateVerdict:
    """Rebuild the gate's verdict from its record; without a gate there is none but the outcome."""
    evidence = {"num_rows": 0, "num_frauds": 0, **step["evidence"], "promote": is_promoted}
    return GateVerdict(**{**evidence, "reasons": tuple(step["reasons"])})
