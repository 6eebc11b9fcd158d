"""One command tells the whole story of the fraud problem, and writes the page that shows it.

Raw events become features, three models, a served champion; a stream is replayed over HTTP; the
world changes, drift is found, a challenger is trained, passes the gate, and the running service
picks it up. Every step is the real stage a user would run; this module only decides the calendar
and writes down what happened.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from configs.environment import describe_environment
from configs.files import write_json
from configs.schema import FraudConfig, WorldChange
from configs.terminal import format_name
from data.fraud import load_labels, load_transactions, run_data
from features.store import (
    FraudFeatureStore,
    materialise,
    open_feature_store,
    run_features,
)
from monitoring.fraud import run_monitor
from monitoring.parity import check_parity, measure_parity
from monitoring.report import write_demo_page
from serving.client import wait_for_version
from serving.loadtest import run_load
from serving.replay import replay_history
from serving.server import find_free_port, start_service
from training.fraud import run_train

LAST_STRETCH = pd.Timedelta(hours=6)
"""What the promoted model is asked to score, at the end of the history."""


@dataclass(frozen=True)
class Calendar:
    """The demo's instants, UTC: service starts, world changes, replay ends, the present."""

    serve: pd.Timestamp
    change: pd.Timestamp
    replayed: pd.Timestamp
    present: pd.Timestamp


@dataclass
class Story:
    """What happened so far: seconds by step, and the timeline the page shows."""

    seconds: dict[str, float] = field(default_factory=dict)
    timeline: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure one step's wall time."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def tell(self, instant: pd.Timestamp, title: str, detail: str) -> None:
        """Add an event of the simulated calendar."""
        self.timeline.append({"time": instant.isoformat(), "title": title, "detail": detail})


def plan_calendar(
    first: pd.Timestamp, last: pd.Timestamp, *, serve_from: float, replay_days: int
) -> Calendar:
    """Lay the demo's instants into a history.

    Args:
        first: Time of the first transaction.
        last: Time of the last one.
        serve_from: Share of the history's days after which the first model goes live.
        replay_days: Days scored over HTTP before the change, and as many after.

    Raises:
        ValueError: If the history is too short for it.
    """
    start = first.normalize()
    num_days = (last - start).days + 1
    serve = start + pd.Timedelta(days=round(serve_from * num_days))
    change = serve + pd.Timedelta(days=replay_days)
    replayed = change + pd.Timedelta(days=replay_days)
    present = last + pd.Timedelta(microseconds=1)
    if replayed > present:
        raise ValueError(
            f"the history has {num_days} days; the demo's calendar (demo.serve_from, "
            "demo.replay_days) reaches past its end"
        )
    return Calendar(serve, change, replayed, present)


def run_demo(
    config: FraudConfig, *, transactions: Path | None = None, mapping: Path | None = None
) -> dict[str, Any]:
    """Run the story from raw events to a promoted challenger.

    Args:
        config: ``runs`` is the demo's own folder; what an earlier demo left there is removed.
        transactions: The user's own file instead of the simulated world; nothing is changed in it,
            so drift is what it holds by itself.
        mapping: Which of its columns is which.

    Returns:
        The summary, as in ``<runs>/summary.json``.

    Raises:
        ValueError: If ``runs`` holds files that no demo wrote, or the history is too short.
    """
    started = time.perf_counter()
    if config.serving.workers != 1:
        raise ValueError("the demo watches one worker take a promotion up: set serving.workers=1")
    clear_earlier_demo(config.runs)
    story = Story()
    with story.step("data"):
        is_simulated = transactions is None
        made = run_data(
            _schedule_change(config) if is_simulated else config,
            world="simulated",
            transactions=transactions,
            mapping=mapping,
        )
    history, labels = load_transactions(config.runs), load_labels(config.runs)
    calendar = plan_calendar(
        history["event_time"].iloc[0],
        history["event_time"].iloc[-1],
        serve_from=config.demo.serve_from,
        replay_days=config.demo.replay_days,
    )
    with story.step("features"):
        built = run_features(config, as_of=calendar.serve)
    with story.step("training"):
        trained = run_train(config, now=calendar.serve)
    champion = trained["champion"]
    story.tell(
        calendar.serve,
        "First champion",
        f"{format_name(champion['name'])}, version {champion['version']}, starts to serve",
    )
    store = open_feature_store(config.runs)
    served = _serve(config, calendar, story, history=history, labels=labels, store=store)
    if is_simulated:
        story.tell(calendar.change, "The world changes", _describe_change(config))
    with story.step("parity"):
        parity = measure_parity(config.runs, store, history)
    total = time.perf_counter() - started
    story.seconds["starting the service and the rest"] = total - sum(story.seconds.values())
    summary = {
        "seconds_total": round(total, 1),
        "seconds": {name: round(value, 1) for name, value in story.seconds.items()},
        "source": "simulated world" if is_simulated else str(transactions),
        "transactions": made["transactions"],
        "fraud_rate": made["fraud_rate"],
        "data": {name: made[name] for name in ("customers", "days", "frauds", "unlabelled")},
        "split": trained["split"],
        "models": trained["models"],
        "baselines": trained["baselines"],
        "champion": champion,
        "comparison": trained["comparison"],
        "patterns": trained["patterns"],
        "slices": trained["slices"],
        "operating_point": trained["operating_point"],
        "parity": parity,
        **served,
        "timeline": sorted(story.timeline, key=itemgetter("time")),
        "dropped_features": {**built["dropped"], **trained["dropped"]},
        "notes": _list_limits(is_simulated),
        "environment": describe_environment(),
    }
    write_json(config.runs / "summary.json", summary)
    check_parity(parity)
    write_demo_page(config.runs / "report.html", summary=summary, figures=_read_figures(config))
    return {
        **summary,
        "wrote": [str(config.runs / name) for name in ("summary.json", "report.html")],
        "next": f"open {config.runs / 'report.html'}",
    }


def _serve(
    config: FraudConfig,
    calendar: Calendar,
    story: Story,
    *,
    history: pd.DataFrame,
    labels: pd.DataFrame,
    store: FraudFeatureStore,
) -> dict[str, Any]:
    """Serve, replay, load, monitor, retrain and see the promotion, against one running service."""
    with start_service(config, port=find_free_port(config.serving.host)) as url:
        replay = partial(replay_history, url, store=store, transactions=history, labels=labels)
        with story.step("replay"):
            replay(since=calendar.serve, until=calendar.change)
        with story.step("load"):
            load = run_load(config, url=url, now=calendar.change)
        with story.step("monitoring"):
            quiet = run_monitor(
                config, now=calendar.change, since=calendar.serve, until=calendar.change
            )
        story.tell(calendar.change, "First report", _describe_decision(quiet))
        with story.step("replay"):
            replay(since=calendar.change, until=calendar.replayed)
        with story.step("monitoring and retraining"):
            materialise(store, history, labels, as_of=calendar.present)
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
        seen = None
        if alarmed["retrain"]["promoted"]:
            seen = wait_for_version(url, alarmed["retrain"]["version"])
            answers = replay(since=calendar.present - LAST_STRETCH, until=calendar.present)
            assert set(answers["model_version"]) <= {seen["version"]}, "answers of two models"
            story.tell(
                calendar.present,
                "Promotion",
                f"the running service, not restarted, took version {seen['version']} up"
                f" {seen['seconds']:.1f} s after the gate and answered {len(answers):,}"
                " transactions with it",
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


def clear_earlier_demo(runs: Path) -> None:
    """Remove what an earlier demo left, finished or not; touch nothing else.

    Raises:
        ValueError: If the folder holds files that no demo wrote.
    """
    marker = runs / ".demo"
    if runs.exists() and any(runs.iterdir()) and not marker.exists():
        raise ValueError(
            f"{runs} holds files that no demo wrote; name an empty or new folder with --runs"
        )
    runs.mkdir(parents=True, exist_ok=True)
    marker.write_text("This folder is rewritten by each `throughline fraud demo`.\n")
    for item in runs.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif item != marker:
            item.unlink()


def _schedule_change(config: FraudConfig) -> FraudConfig:
    """Return the configuration with the demo's change in its world, on the calendar's day."""
    days = config.world_size.num_days
    day = round(config.demo.serve_from * days) + config.demo.replay_days
    change = WorldChange(day=day, **config.demo.change.model_dump())
    data = config.data.model_copy(update={"changes": (*config.data.changes, change)})
    return config.model_copy(update={"data": data})


def _describe_change(config: FraudConfig) -> str:
    change = config.demo.change
    factors = {"volume": change.volume_factor, "amounts": change.amount_factor}
    named = {**factors, **change.pattern_factors}
    return ", ".join(f"{name} x {value:g}" for name, value in named.items() if value != 1)


def _describe_decision(result: dict[str, Any]) -> str:
    decision = result["decision"]
    return f"{decision['action']}: {'; '.join(decision['reasons'])}"


def _pick_load(load: dict[str, Any]) -> dict[str, Any]:
    names = (
        *("requests", "errors", "qps", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms"),
        *("connections", "degraded", "timed_out", "caveat"),
    )
    return {name: load[name] for name in names if name in load}


def _read_figures(config: FraudConfig) -> dict[str, str]:
    """Read the pictures that training and the load run drew, by name."""
    folders = (config.runs / "training", config.runs / "load")
    files = [file for folder in folders for file in sorted(folder.glob("*.svg"))]
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def _list_limits(is_simulated: bool) -> list[str]:
    limits = [
        "The load run is closed loop on the same cores as the service: it finds a rate, and"
        " understates latency above it.",
        "Serving goes through BentoML's typed API and Feast's SDK, the documented default.",
        "The folds that chose the champion also tuned LightGBM, while the other two were fitted"
        " with fixed settings; the test period was not used for either.",
    ]
    if is_simulated:
        limits.append("The world is simulated: its patterns are documented in data/fraud_world.py.")
    return limits
