"""Where an attempt stands, and a step it takes: the loop's records, as its database keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

State = Literal[
    "training", "judging", "shadow", "canary", "watching",
    "done", "rejected", "rolled_back", "superseded", "failed",
]  # fmt: skip
ACTIVE: tuple[State, ...] = ("training", "judging", "shadow", "canary")
"""A challenger is on its way; nothing else is trained meanwhile."""
OPEN: tuple[State, ...] = (*ACTIVE, "watching")
"""Something is still to be found out."""
WITHOUT_EFFECT: tuple[State, ...] = ("training", "judging", "done")
"""Reaching it asks nothing of the registry."""


@dataclass(frozen=True)
class Attempt:
    """One challenger's way from the decision to train it to its end.

    Attributes:
        id: In the order of opening.
        trigger_key: What it answers to; there is never another attempt with the same.
        trigger: What asked for it.
        champion: The version that served when it began.
        challenger: The version trained, once it is.
        state: Where it stands.
        step: Of the canary, from 0; 0 elsewhere.
        share: Of the customers that this step's canary answers, in [0, 1); 0 elsewhere.
        is_applied: What the state asks of the registry has been done; False is an intent, which
            whoever finds it carries out.
        is_frozen: The feed is broken, and nothing is concluded from it.
        num_tries: How often its training was begun.
        opened_time: As of when it was decided, and is trained.
        state_time: Since when the state, or since the feed was sound again.
        settled_time: When its challenger took over or was turned down, the later of the two.
    """

    id: int
    trigger_key: str
    trigger: str
    champion: str
    challenger: str | None
    state: State
    step: int
    share: float
    is_applied: bool
    is_frozen: bool
    num_tries: int
    opened_time: pd.Timestamp
    state_time: pd.Timestamp
    settled_time: pd.Timestamp | None

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        times = ("opened_time", "state_time", "settled_time")
        found = {name: getattr(self, name) for name in times}
        return {
            **asdict(self),
            **{name: time and time.isoformat() for name, time in found.items()},
        }


@dataclass(frozen=True)
class Change:
    """A step of an attempt.

    Attributes:
        to_state: Where to.
        reasons: Why, in words.
        evidence: The numbers behind it, as JSON.
        step: Of the canary.
        share: Of the customers that the canary answers.
        challenger: The version trained, when it is.
        who: At whose word.
    """

    to_state: State
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    step: int = 0
    share: float = 0.0
    challenger: str | None = None
    who: str = "tick"


def describe_place(attempt: Attempt) -> str:
    """Say what is under way, in words."""
    place = (
        f"{attempt.state} step {attempt.step + 1}" if attempt.state == "canary" else attempt.state
    )
    return (
        f"{attempt.trigger_key} is under way, in {place} since {attempt.state_time:%Y-%m-%d %H:%M}"
    )
