"""The command ``throughline fraud timelapse``: policies of retraining, side by side over months."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from command_line import Config, Json, Runs, Seed, Set, read_fraud_config


class World(StrEnum):
    """Names of ``monitoring.timelapse_worlds.plan_worlds``; here, since importing that is slow."""

    UNCHANGED = "unchanged"
    GRADUAL = "gradual"
    ABRUPT = "abrupt"
    BROKEN_FEED = "broken_feed"


def fraud_timelapse(
    *,
    config: Config = None,
    runs: Runs = None,
    seed: Seed = None,
    settings: Set = None,
    only: Annotated[
        list[World] | None,
        typer.Option(metavar="|".join(World), help="Replay this world alone; repeat for more."),
    ] = None,
    transactions: Annotated[
        Path | None, typer.Option(help="Your own transactions as the world; needs --mapping.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="YAML file: which of your columns is which.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Worlds replayed at a time.  [default: the cores]")
    ] = None,
    json: Json = None,
) -> None:
    """Replay months of several worlds under six retraining policies, and compare them.

    In: nothing (a world that does not change, one that drifts, one with a new fraud pattern, one
    with a broken feed), or your own transactions. Out: in runs/.../timelapse a table, a picture
    per world and a page that is stepped day by day. Ours is the configuration's retraining and
    rollout sections; the others are schedules and single triggers.

    Example: throughline fraud timelapse --set retraining.floor_days=14

    Example: throughline fraud timelapse --only abrupt

    Next: open runs/fraud/timelapse/timelapse.html
    """
    chosen = read_fraud_config(config, settings, {"runs": runs, "seed": seed})
    if (transactions is None) != (mapping is None):
        raise ValueError("a file of your own needs --transactions and --mapping; give both")
    from configs.files import write_json
    from configs.terminal import print_result
    from monitoring.timelapse import run_timelapse
    from training.fraud import run_train
    from training.fraud_refit import refit

    result = run_timelapse(
        chosen,
        refit=refit,
        train=run_train,
        only=[world.value for world in only or ()],
        transactions=transactions,
        mapping=mapping,
        processes=processes,
    )
    if json is not None:
        write_json(json, {**result, "wrote": [*result["wrote"], str(json)]})
    print_result(_shorten(result, json=json))


def _shorten(result: Mapping[str, Any], *, json: Path | None) -> dict[str, Any]:
    """Leave the days out, and what does not fit a terminal's line."""
    shown = (
        *("mean_average_precision", "cost_per_1000", "trainings"),
        *("false_alarms", "days_to_detect", "days_to_recover"),
    )
    return {
        "served_days": result["served_days"],
        "seconds": result["seconds"],
        "policies": {row["name"]: {name: row[name] for name in shown} for row in result["rows"]},
        "targets": {
            target["name"]: {
                "value": target["value"],
                "target": f"{target['sense'].replace('_', ' ')} {target['target']:g}",
                "met": target["met"],
            }
            for target in result["targets"]
        },
        "notes": result["notes"],
        "wrote": [*result["wrote"], *([str(json)] if json is not None else [])],
        "next": result["next"],
    }
