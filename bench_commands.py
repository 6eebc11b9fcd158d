"""The commands ``throughline bench <name>``: each measures one thing beside its peers, in one run.

Every result holds ``environment``, ``rows`` (one per measured thing, units in the key names) and
``targets`` (name, value, target, met), so that a person and a script read the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure: every figure beside its peers, in one run, as a ratio.",
)


@app.callback()
def bench() -> None:
    """Make every bench a command of its own, however many there are."""


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
