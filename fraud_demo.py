"""One command tells the whole story of the fraud problem, and writes the page that shows it.

Raw events become features, four models, a served champion; a stream is replayed over HTTP; the
world changes, drift is found, a challenger is trained, passes the gate, and the running service
picks it up. Every step is the real stage a user would run; this module only decides the order and
writes down what happened.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from configs.environment import describe_environment
from configs.files import write_json
from configs.schema import FraudConfig
from configs.terminal import format_name
from data.fraud import load_labels, load_transactions, run_data
from features.store import open_feature_store
from features.store_build import run_features
from fraud_demo_calendar import (
    Calendar,
    Story,
    describe_change,
    leave_out_floor,
    plan_calendar,
    schedule_change,
)
from fraud_demo_service import Stream, serve_through_change
from monitoring.parity import check_parity, measure_parity
from monitoring.report import write_demo_page
from training.fraud import run_train

if TYPE_CHECKING:
    import pandas as pd

MARKER = ".demo"
"""The file that says that a folder is a demo's own."""
TRAINED = (
    *("split", "models", "baselines", "champion", "comparison"),
    *("patterns", "slices", "operating_point"),
)
"""What the summary repeats of the first training run."""


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
        FileNotFoundError: If a file does not exist; an earlier demo is as it was.
        ValueError: If ``runs`` holds files that no demo wrote, or the data are not what they must
            be, or too few days; an earlier demo is as it was.
    """
    started, config = time.perf_counter(), leave_out_floor(config)
    if config.serving.workers != 1:
        raise ValueError("the demo watches one worker take a promotion up: set serving.workers=1")
    check_may_be_cleared(config.runs)
    story, is_simulated = Story(), transactions is None
    with story.step("data"), TemporaryDirectory(prefix="throughline-demo-") as folder:
        apart = config.model_copy(update={"runs": Path(folder)})
        made = run_data(
            schedule_change(apart) if is_simulated else apart,
            world="simulated",
            transactions=transactions,
            mapping=mapping,
        )
        _plan(config, load_transactions(apart.runs))
        clear_earlier_demo(config.runs)  # only now: what was asked for can be had
        shutil.copytree(apart.runs, config.runs, dirs_exist_ok=True)
    summary = {
        "source": "simulated world" if is_simulated else str(transactions),
        "transactions": made["transactions"],
        "fraud_rate": made["fraud_rate"],
        "data": {name: made[name] for name in ("customers", "days", "frauds", "unlabelled")},
        **_run_stages(config, story, is_simulated=is_simulated),
        "timeline": sorted(story.timeline, key=itemgetter("time")),
        "notes": _list_limits(is_simulated),
        "environment": describe_environment(),
    }
    total = time.perf_counter() - started
    story.seconds["starting the service and the rest"] = total - sum(story.seconds.values())
    return _write(
        config,
        {
            "seconds_total": round(total, 1),
            "seconds": {name: round(value, 1) for name, value in story.seconds.items()},
            **summary,
        },
    )


def _run_stages(config: FraudConfig, story: Story, *, is_simulated: bool) -> dict[str, Any]:
    """Train the first champion on the data at hand, serve it through the change, check parity."""
    history, labels = load_transactions(config.runs), load_labels(config.runs)
    calendar = _plan(config, history)
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
    stream = Stream(history, labels, open_feature_store(config.runs))
    served = serve_through_change(config, calendar, story, stream)
    if is_simulated:
        story.tell(calendar.change, "The world changes", describe_change(config))
    with story.step("parity"):
        parity = measure_parity(config.runs, stream.store, history)
    return {
        **{name: trained[name] for name in TRAINED},
        "parity": parity,
        **served,
        "dropped_features": {**built["dropped"], **trained["dropped"]},
    }


def _plan(config: FraudConfig, history: pd.DataFrame) -> Calendar:
    """Lay the demo's instants into a history; see ``plan_calendar``."""
    return plan_calendar(
        history["event_time"].iloc[0],
        history["event_time"].iloc[-1],
        serve_from=config.demo.serve_from,
        replay_days=config.demo.replay_days,
        late_days=config.demo.late_days,
    )


def _write(config: FraudConfig, summary: dict[str, Any]) -> dict[str, Any]:
    """Write the summary, then the page, unless what was served differs from history."""
    write_json(config.runs / "summary.json", summary)
    check_parity(summary["parity"])
    page = config.runs / "report.html"
    write_demo_page(page, summary=summary, figures=_read_figures(config))
    wrote = [str(config.runs / "summary.json"), str(page)]
    return {**summary, "wrote": wrote, "next": f"open {page}"}


def list_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a terminal shows of the summary: the story, a line an event, is part of it."""
    lines = [f"{event['time'][:10]}  {event['title']}" for event in summary["timeline"]]
    return {**summary, "timeline": "\n".join(lines)}


def check_may_be_cleared(runs: Path) -> None:
    """Refuse a folder that holds files which no demo wrote.

    Raises:
        ValueError: If it does.
    """
    marker = runs / MARKER
    if runs.exists() and any(runs.iterdir()) and not marker.exists():
        raise ValueError(
            f"{runs} holds files that no demo wrote; name an empty or new folder with --runs"
        )


def clear_earlier_demo(runs: Path) -> None:
    """Remove what an earlier demo left, finished or not; touch nothing else.

    Raises:
        ValueError: As for ``check_may_be_cleared``.
    """
    check_may_be_cleared(runs)
    marker = runs / MARKER
    runs.mkdir(parents=True, exist_ok=True)
    marker.write_text("This folder is rewritten by each `throughline fraud demo`.\n")
    for item in runs.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif item != marker:
            item.unlink()


def _read_figures(config: FraudConfig) -> dict[str, str]:
    """Read the pictures that training and the load run drew, by name."""
    folders = (config.runs / "training", config.runs / "load")
    files = [file for folder in folders for file in sorted(folder.glob("*.svg"))]
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def _list_limits(is_simulated: bool) -> list[str]:
    limits = [
        "The load run is closed loop on the same cores as the service: it finds a rate, and"
        " understates latency above it.",
        "The replayed days go through BentoML's typed API, the load run through the fast lane.",
        "Days between the change and the last ten are not served: a model cannot have learnt from"
        " the change before, since training, calibration and test lie apart by the label delay.",
        "The calendar asks for no training (retraining.floor_days is left out): it would be due by"
        " the unserved days alone, before drift or matured numbers had said anything.",
        "The folds that chose the champion also tuned LightGBM, while the other two were fitted"
        " with fixed settings; the test period was not used for either.",
    ]
    if is_simulated:
        limits.append("The world is simulated: its patterns are documented in data/fraud_world.py.")
    return limits
