"""What every command shares: its options, the settings they change, and how it ends.

Nothing here imports a stage or a slow library before a command runs, so that ``--help`` answers at
once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from configs.schema import FraudConfig

Config = Annotated[
    Path | None,
    typer.Option(help="YAML file with every setting.  [default: configs/fraud.yaml]"),
]
Json = Annotated[Path | None, typer.Option(help="Write the whole result there, as JSON.")]
Runs = Annotated[Path | None, typer.Option(help="Folder all files go to, and come from.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace one setting, as training.num_trials=4; repeat."
    ),
]


def collect_changes(settings: list[str] | None, options: Mapping[str, object]) -> dict[str, object]:
    """Lay ``--set KEY=VALUE`` over the options given; an option not given changes nothing.

    Args:
        settings: The texts of ``--set``; values are read as YAML.
        options: Values by dotted key of the configuration; ``None`` where not given.

    Returns:
        New values by dotted key.

    Raises:
        ValueError: If a setting has no ``=`` or its value is not YAML.

    >>> collect_changes(["training.num_trials=4"], {"seed": 3, "runs": None})
    {'seed': 3, 'training.num_trials': 4}
    """
    import yaml

    changes = {key: value for key, value in options.items() if value is not None}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write KEY=VALUE, as training.num_trials=4")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {setting}: its value is not YAML; quote it") from error
    return changes


def read_fraud_config(
    path: Path | None, settings: list[str] | None, options: Mapping[str, object]
) -> FraudConfig:
    """Read the fraud configuration with the command line's changes over it.

    Args:
        path: Of ``--config``; the one that comes with the code if ``None``.
        settings: As for ``collect_changes``.
        options: As for ``collect_changes``.
    """
    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    changes = collect_changes(settings, options)
    return load_fraud_config(path or DEFAULT_FRAUD_CONFIG, changes=changes)


def read_time(option: str, text: str | None) -> pd.Timestamp | None:
    """Read an ISO time with its zone; a time without one could mean two instants."""
    if text is None:
        return None
    import pandas as pd

    try:
        time = pd.Timestamp(text)
    except ValueError as error:
        raise ValueError(f"{option} {text}: not a time; write 2026-05-01T00:00:00Z") from error
    if time.tzinfo is None:
        raise ValueError(f"{option} {text}: has no time zone; write {time.isoformat()}Z for UTC")
    return time.tz_convert("UTC")


def repeat_place(advice: str, *, config: Path | None, runs: Path | None) -> str:
    """Give each command that a text advises the place of the command that failed or ended.

    >>> repeat_place("run `throughline fraud train` first", config=None, runs=Path("runs/mine"))
    'run `throughline fraud train --runs runs/mine` first'
    """
    options = {"--config": config, "--runs": runs}
    place = "".join(f" {name} {path}" for name, path in options.items() if path)
    return re.sub(r"throughline fraud [a-z]+", lambda found: found[0] + place, advice)


def read_place(arguments: Sequence[str]) -> dict[str, Path | None]:
    """Find ``--config`` and ``--runs`` among a command's arguments.

    >>> read_place(["fraud", "train", "--runs=runs/mine"])
    {'config': None, 'runs': PosixPath('runs/mine')}
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--config", "--runs"):
        parser.add_argument(name, type=Path, nargs="?")
    return vars(parser.parse_known_args(arguments)[0])


def finish(
    result: Mapping[str, Any],
    *,
    json: Path | None,
    config: Path | None = None,
    runs: Path | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the result as JSON where asked, then print it; the next command gets the same place.

    ``facts`` are printed instead of the result, where a person reads other words than a program.
    """
    from configs.files import write_json
    from configs.terminal import print_result

    shown = {**result, "wrote": [*result["wrote"]]}
    shown["next"] = repeat_place(shown["next"], config=config, runs=runs)
    if json is not None:
        write_json(json, shown)
        shown["wrote"].append(str(json))
    if facts is not None:
        shown = {**facts, "wrote": shown["wrote"], "next": shown["next"]}
    print_result(shown)


def finish_bench(result: Mapping[str, Any], *, json: Path | None) -> None:
    """Write a benchmark's result as JSON where asked, and print its rows and targets as tables."""
    from configs.files import write_json
    from configs.terminal import print_result

    tables = {
        "rows": {str(row["name"]): _drop_name(row) for row in result["rows"]},
        "targets": {
            str(target["name"]): {
                "value": target["value"],
                "target": ("at least " if "at_least" in target else "at most ")
                + f"{target['target']:g}",
                "met": target["met"],
            }
            for target in result["targets"]
        },
    }
    wrote = list(result["wrote"])
    if json is not None:
        wrote.append(str(json))
        write_json(json, {**result, "wrote": wrote})
    shown = {key: value for key, value in result.items() if key not in tables}
    print_result({**shown, **tables, "wrote": wrote})


def _drop_name(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "name"}
