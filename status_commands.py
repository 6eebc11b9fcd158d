"""Seeing what is going on: ``throughline fraud status`` and ``throughline monitor ui``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from command_line import Config, Json, Runs, Set, finish, read_fraud_config, repeat_place

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the monitoring reports; `throughline fraud monitor` makes them.",
)


@app.callback()
def monitor() -> None:
    """Make every page a command of its own, however many there are."""


@app.command("ui")
def monitor_ui(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8500,
    json: Json = None,
) -> None:
    """Show the monitoring reports in Evidently's own user interface, until Ctrl-C.

    In: the reports of `fraud monitor` and `fraud tick`; those the workspace lacks are added first,
    and those made meanwhile appear by themselves. Out: pages on 127.0.0.1, with nothing told to
    anybody else; they show and change nothing.

    Example: throughline monitor ui --runs runs/demo --port 8501

    Next: throughline fraud status
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    from monitoring.monitor_ui import run_monitor_ui

    finish(run_monitor_ui(chosen, port=port), json=json, config=config, runs=runs)


def fraud_status(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one page there, to open on any device.")
    ] = None,
    json: Json = None,
) -> None:
    """Say what serves, how it does, what is wrong and what was decided.

    In: the registry, the monitoring reports, the loop's database, the running service if one
    answers; nothing is changed. Out: the champion and since when, its realised metrics with their
    intervals, open alarms, the rollout under way, the last decisions; with --html as one page.

    Example: throughline fraud status --html status.html

    Next: what the status says
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    from configs.files import write_json
    from monitoring.status import run_status
    from monitoring.status_terminal import print_status

    status = run_status(chosen, html=html)
    status["next"] = repeat_place(status["next"], config=config, runs=runs)
    if json is not None:
        write_json(json, status)
        status["wrote"].append(str(json))
    print_status(status)
