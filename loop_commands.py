"""The command ``throughline fraud tick``: the loop takes one step, or one every so often."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from command_line import Config, Json, Runs, Set, finish, read_fraud_config, read_time

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from configs.schema import FraudConfig

NOW_HELP = (
    "As of this UTC time, ISO 8601, or 'clock': the time it is, for a live feed.  "
    "[default: the log's last transaction]"
)


def fraud_tick(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    now: Annotated[str | None, typer.Option(help=NOW_HELP)] = None,
    loop: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Tick so often, until Ctrl-C.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would decide; change nothing.")
    ] = False,
    json: Json = None,
) -> None:
    """Take one step of the loop: look, decide, train, judge, roll out, watch, take back.

    In: the prediction log, labels that have matured, the registry, and what earlier ticks left in
    the loop's database. Out: a decision with its reasons, every step taken with its evidence, and
    what a running service follows within two seconds. Call it from cron, an orchestrator or with
    --loop: two at once are one, and a killed one is finished by the next. `retraining` and
    `rollout` in the configuration are the policy.

    Example: throughline fraud tick --now 2026-05-01T00:00:00Z

    Example: throughline fraud tick --now clock --loop 3600

    Next: what the decision says
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    if loop is not None and now not in (None, "clock"):
        raise ValueError(f"--loop needs a time that moves; --now {now} stands still")
    if now != "clock":
        read_time("--now", now)  # a mistyped one is told before anything slow is imported

    def tick() -> None:
        finish(_tick(chosen, now=now, dry_run=dry_run), json=json, config=config, runs=runs)

    if loop is None:
        tick()
        return
    while True:
        _survive(tick)
        time.sleep(loop)


def _survive(tick: Callable[[], None]) -> None:
    """Take a step of a loop; what may be gone by the next one is told in one line."""
    from monitoring.loop_tables import DatabaseError

    try:
        tick()
    except (ValueError, OSError, RuntimeError, DatabaseError) as error:
        what = str(error).partition("\n")[0] or type(error).__name__
        typer.echo(f"this tick failed, the loop goes on: {what}", err=True)


def _tick(config: FraudConfig, *, now: str | None, dry_run: bool) -> dict[str, Any]:
    from monitoring.loop_machine import advance_loop, preview_decision
    from monitoring.loop_tables import get_database_url
    from monitoring.loop_wiring import build_parts

    parts, instant = build_parts(_train), _choose_now(config, now)
    act = preview_decision if dry_run else advance_loop
    result = act(config, now=instant, parts=parts)
    address = get_database_url(config.runs, config.retraining.database_url)
    is_file = address.startswith("sqlite:///")
    wrote = [address.removeprefix("sqlite:///")] if is_file and not dry_run else []
    return {**result, "wrote": wrote, "next": _advise(result)}


def _train(config: FraudConfig, **asked: Any) -> dict[str, Any]:  # noqa: ANN401 - as run_train
    """Train as ``run_train``, whose imports take seconds that a tick without a training saves."""
    from training.fraud import run_train

    return run_train(config, **asked)


def _choose_now(config: FraudConfig, now: str | None) -> pd.Timestamp:
    """Return the instant asked for; a replayed history has its own, which the log's last row tells.

    Raises:
        FileNotFoundError: If it is not given and there is no prediction.
    """
    import pandas as pd

    if now == "clock":
        return pd.Timestamp.now("UTC")
    instant = read_time("--now", now)
    if instant is not None:
        return instant
    from serving.prediction_log import get_prediction_folder, load_predictions

    folder: Path = get_prediction_folder(config.runs)
    predictions, _ = load_predictions(folder)
    if predictions.empty:
        raise FileNotFoundError(
            f"no predictions in {folder}; start `throughline fraud serve` and score transactions"
        )
    return pd.Timestamp(predictions["event_time"].max())


def _advise(result: dict[str, Any]) -> str:
    """Say what a person does next."""
    if result["is_busy"]:
        return "nothing to do: another tick is at work"
    if result["decision"]["action"] == "blocked":
        return "repair the feed (see decision.reasons), then `throughline fraud tick` again"
    if result["state"] == "idle":
        return "nothing to do: `throughline fraud tick` again tomorrow"
    return f"{result['state']} goes on at the next `throughline fraud tick`; see waiting"
