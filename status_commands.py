"""Seeing what is going on: ``throughline fraud status`` and ``throughline monitor ui``."""

from __future__ import annotations

from typing import Annotated

import typer

from command_line import Config, Json, Runs, Set, finish, read_fraud_config

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
