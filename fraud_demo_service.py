"""A served champion, a replayed stream and a change in the world become a promotion, seen live.

One service runs through all of it and is never restarted: the new champion must reach it by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from features.fraud_stream import connect_stream
from features.store import FraudFeatureStore
from features.store_build import materialise
from fraud_demo_calendar import Calendar, Story
from monitoring.fraud import run_monitor
from serving.client import wait_for_version
from serving.loadtest import run_load
from serving.replay import replay_history
from serving.server import find_free_port, start_service
from training.fraud import run_train

LAST_STRETCH = pd.Timedelta(hours=6)
"""What the promoted model is asked to score, at the end of the history."""

Replay = Callable[..., pd.DataFrame]
"""Score the history from ``since`` to ``until`` over HTTP; answers, one row per transaction."""


@dataclass(frozen=True)
class Stream:
    """The history, its labels and the store that answers from them."""

    history: pd.DataFrame
    labels: pd.DataFrame
    store: FraudFeatureStore


def serve_through_change(
    config: FraudConfig, calendar: Calendar, story: Story, stream: Stream
) -> dict[str, Any]:
    """Serve, replay, load, monitor, retrain and see the promotion, against one running service.

    Args:
        config: Where the service listens, and what the stages are told.
        calendar: When the world changes, and until when it is replayed.
        story: Gains each step's seconds and events.
        stream: What is replayed.

    Returns:
        ``serving``, ``drift`` and ``retrain``, as in the demo's summary.
    """
    with start_service(config, port=find_free_port(config.serving.host)) as url:
        replay = partial(
            replay_history,
            url,
            stream=connect_stream(config.runs, stream.store, config.stream),
            transactions=stream.history,
            labels=stream.labels,
        )
        load, quiet = _serve_unchanged(config, calendar, story, replay=replay, url=url)
        alarmed = _serve_changed(config, calendar, story, replay=replay, stream=stream)
        seen = None
        if alarmed["retrain"]["promoted"]:
            seen = _see_promotion(
                calendar, story, replay=replay, url=url, version=alarmed["retrain"]["version"]
            )
    return {
        "serving": {
            **_pick_load(load),
            "promotion_seen": seen,
            "model_version": alarmed["retrain"]["version"],
        },
        "drift": {
            "detected": alarmed["drift"]["detected"],
            "features": alarmed["drift"]["features"],
            "false_alarm_before_change": quiet["drift"]["detected"],
            "reports": [quiet["drift"], alarmed["drift"]],
        },
        "retrain": alarmed["retrain"],
    }


def _serve_unchanged(
    config: FraudConfig, calendar: Calendar, story: Story, *, replay: Replay, url: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Replay and report the days before the change; a load run follows them."""
    with story.step("replay"):
        replay(since=calendar.serve, until=calendar.change)
    with story.step("load"):
        load = run_load(config, url=url, now=calendar.change)
    with story.step("monitoring"):
        quiet = run_monitor(
            config, now=calendar.change, since=calendar.serve, until=calendar.change
        )
    story.tell(calendar.change, "First report", _describe_decision(quiet))
    return load, quiet


def _serve_changed(
    config: FraudConfig, calendar: Calendar, story: Story, *, replay: Replay, stream: Stream
) -> dict[str, Any]:
    """Replay the days after the change; report them, and retrain, once labels have matured."""
    with story.step("replay"):
        replay(since=calendar.change, until=calendar.replayed)
    with story.step("monitoring and retraining"):
        materialise(stream.store, stream.history, stream.labels, as_of=calendar.present)
        alarmed = run_monitor(
            config,
            now=calendar.present,
            since=calendar.change,
            until=calendar.replayed,
            train=run_train,
        )
    story.tell(
        calendar.present,
        "After the change, once labels had matured",
        f"of {calendar.change:%Y-%m-%d} to {calendar.replayed:%Y-%m-%d}: "
        + _describe_decision(alarmed),
    )
    return alarmed


def _see_promotion(
    calendar: Calendar, story: Story, *, replay: Replay, url: str, version: str
) -> dict[str, Any]:
    """Wait until the running service answers with ``version``, and score the last hours with it."""
    seen = wait_for_version(url, version)
    answers = replay(since=calendar.present - LAST_STRETCH, until=calendar.present)
    assert set(answers["model_version"]) <= {seen["version"]}, "answers of two models"
    story.tell(
        calendar.present,
        "Promotion",
        f"the running service, not restarted, took version {seen['version']} up"
        f" {seen['seconds']:.1f} s after the gate and answered {len(answers):,}"
        " transactions with it",
    )
    return seen


def _describe_decision(result: dict[str, Any]) -> str:
    decision = result["decision"]
    return f"{decision['action']}: {'; '.join(decision['reasons'])}"


def _pick_load(load: dict[str, Any]) -> dict[str, Any]:
    names = (
        *("requests", "errors", "qps", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms"),
        *("connections", "degraded", "timed_out", "caveat"),
    )
    return {name: load[name] for name in names if name in load}
