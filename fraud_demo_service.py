"""A served champion and a changed world become what the loop makes of them, seen live.

One service runs through all of it and is never restarted: a new champion must reach it by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from features.fraud_stream import connect_stream
from features.store import FraudFeatureStore
from features.store_build import materialise
from fraud_demo_calendar import Calendar, Story
from fraud_demo_loop import LoopStory
from monitoring.fraud import run_monitor
from serving.loadtest import run_load
from serving.replay import replay_history
from serving.server import find_free_port, start_service
from training.registry import get_champion


@dataclass(frozen=True)
class Stream:
    """The history, its labels and the store that answers from them."""

    history: pd.DataFrame
    labels: pd.DataFrame
    store: FraudFeatureStore


def serve_through_change(
    config: FraudConfig, calendar: Calendar, story: Story, stream: Stream
) -> dict[str, Any]:
    """Serve, replay, load, monitor and tick, against one running service.

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
        loop = LoopStory(config, url, replay, story)
        first, _ = get_champion(config.runs)
        loop.live_through(calendar.serve, calendar.change)
        with story.step("load"):
            load = run_load(config, url=url, now=calendar.change)
        quiet = _report(config, story, calendar.serve, calendar.change, now=calendar.change)
        story.tell(calendar.change, "First report", _describe_decision(quiet))
        loop.live_through(calendar.change, calendar.replayed)
        with story.step("labels mature"):
            materialise(stream.store, stream.history, stream.labels, as_of=calendar.late)
        alarmed = _report(config, story, calendar.change, calendar.replayed, now=calendar.late)
        story.tell(
            calendar.late,
            "Report on the changed days, now matured",
            _describe_decision(alarmed),
        )
        loop.live_through(calendar.late, calendar.present)
        loop.close(calendar.present)
    retrain = loop.describe(first=first)
    return {
        "serving": {
            **_pick_load(load),
            "promotion_seen": loop.seen,
            "model_version": retrain["version"],
        },
        "drift": {
            "detected": alarmed["drift"]["detected"],
            "features": alarmed["drift"]["features"],
            "false_alarm_before_change": quiet["drift"]["detected"],
            "reports": [quiet["drift"], alarmed["drift"]],
        },
        "retrain": retrain,
    }


def _report(
    config: FraudConfig,
    story: Story,
    since: pd.Timestamp,
    until: pd.Timestamp,
    *,
    now: pd.Timestamp,
) -> dict[str, Any]:
    """Report on some days, and leave the decision to the loop."""
    with story.step("monitoring"):
        return run_monitor(config, now=now, since=since, until=until)


def _describe_decision(result: dict[str, Any]) -> str:
    decision = result["decision"]
    return f"{decision['action']}: {'; '.join(decision['reasons'])}"


def _pick_load(load: dict[str, Any]) -> dict[str, Any]:
    names = (
        *("requests", "errors", "qps", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms"),
        *("connections", "degraded", "timed_out", "caveat"),
    )
    return {name: load[name] for name in names if name in load}
