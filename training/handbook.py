"""The handbook benchmark: its simulated world becomes its published tables, run again, and ours.

Simulate, compute inputs, split by week, fit, judge; then the same with one mistake each, and with
our own inputs. Invariant: every published figure stands beside ours with the difference, and
nothing is chosen on the weeks it is judged on.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from configs.environment import describe_environment
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.handbook import NUM_CUSTOMERS, HandbookWorld, simulate_handbook
from features.handbook import build_handbook_features
from features.handbook_signals import build_handbook_signals
from training.handbook_ablations import run_ablations
from training.handbook_pipeline import run_pipeline
from training.handbook_protocol import (
    TRAIN_START,
    WEEK_DAYS,
    find_day,
    split_folds,
    split_weeks,
)
from training.handbook_published import FRAUDS_ADDED, NUM_TRANSACTIONS, SPLIT_COUNTS
from training.handbook_report import (
    build_settings,
    build_table,
    build_targets,
    list_published_only,
    write_results,
)
from training.handbook_rerun import Material, rerun_prequential, rerun_single_split


@dataclass(frozen=True)
class Calendar:
    """When the training weeks begin, in days of the world, and how many folds there are.

    Attributes:
        first_day: Of the single split's training week.
        num_folds: Weekly folds, for validation and again for the test.
    """

    first_day: int
    num_folds: int

    @property
    def last_validation_day(self) -> int:
        """First day of the latest training week whose test week ends before testing begins."""
        return self.first_day - 2 * WEEK_DAYS

    @property
    def last_test_day(self) -> int:
        """First day of the latest training week of the test folds."""
        return self.first_day + (self.num_folds - 1) * WEEK_DAYS


PUBLISHED_CALENDAR = Calendar(first_day=find_day(TRAIN_START), num_folds=4)


def run_handbook(
    config: FraudConfig,
    *,
    world: HandbookWorld | None = None,
    calendar: Calendar = PUBLISHED_CALENDAR,
) -> dict[str, Any]:
    """Run the benchmark and write its results.

    Args:
        config: ``runs`` is the folder; files go to ``handbook/`` in it.
        world: Another world than the published one, as a small one in a test.
        calendar: When that world's weeks are.

    Returns:
        ``rows`` (every measured thing, unrounded), tables to print, ``counts``, ``targets``,
        ``wrote`` and ``next``.

    Raises:
        ValueError: If XGBoost is not installed.
    """
    started = perf_counter()
    world = world or _simulate()
    basic, extended = _build_materials(world, calendar)
    rows = _measure(basic, extended, calendar)
    counts = _count(world, basic, calendar)
    return _finish(config, rows, counts=counts, seconds=perf_counter() - started)


def _measure(
    basic: Material, extended: Material, calendar: Calendar
) -> dict[str, list[dict[str, Any]]]:
    """Measure every row, by protocol; our pipeline's is the first of the prequential ones."""
    num_folds = calendar.num_folds
    split = split_weeks(basic.transactions, first_day=calendar.first_day)
    with show_progress("Single split: five models", total=5) as advance:
        single = rerun_single_split(basic, split, advance=advance)
    validation, test = (
        split_folds(basic.transactions, last_first_day=day, num_folds=num_folds)
        for day in (calendar.last_validation_day, calendar.last_test_day)
    )
    with show_progress("Prequential: the handbook's grids", total=15 * num_folds) as advance:
        prequential = rerun_prequential(basic, validation=validation, test=test, advance=advance)
    with show_progress("Ablations: mistakes made on purpose", total=8) as advance:
        ablations = run_ablations(basic, first_day=calendar.first_day, advance=advance)
    with show_progress("Our pipeline", total=5 * num_folds) as advance:
        ours = run_pipeline(extended, validation=validation, test=test, advance=advance)
    return {
        "single_split": single,
        "prequential": [ours, *prequential],
        "ablations": ablations,
        "published_only": list_published_only(),
    }


def _simulate() -> HandbookWorld:
    with show_progress("Simulating the handbook's customers", total=NUM_CUSTOMERS) as advance:
        return simulate_handbook(advance=advance)


def _build_materials(world: HandbookWorld, calendar: Calendar) -> tuple[Material, Material]:
    """Compute the handbook's inputs and ours on all of history; keep the weeks of the protocol."""
    earliest = calendar.last_validation_day - (calendar.num_folds - 1) * WEEK_DAYS
    latest = calendar.last_test_day + 3 * WEEK_DAYS
    days = world.transactions["day"].to_numpy()
    kept = slice(*np.searchsorted(days, [earliest, latest]))
    with show_progress("Computing inputs", total=2) as advance:
        basic = build_handbook_features(world.transactions).iloc[kept]
        advance(1)
        extended = basic.join(build_handbook_signals(world.transactions))
        advance(1)
    transactions = world.transactions.iloc[kept]
    return (
        Material(transactions, basic.to_numpy(), tuple(map(str, basic.columns))),
        Material(transactions, extended.to_numpy(), tuple(map(str, extended.columns))),
    )


def _count(
    world: HandbookWorld, material: Material, calendar: Calendar
) -> dict[str, dict[str, Any]]:
    """Count what the world and the single split hold, beside the published counts."""
    split = split_weeks(material.transactions, first_day=calendar.first_day)
    is_fraud = material.transactions["is_fraud"].to_numpy()
    published = {"transactions": NUM_TRANSACTIONS, **FRAUDS_ADDED, **SPLIT_COUNTS}
    counted = {
        "transactions": len(world.transactions),
        **world.num_added,
        "train_rows": len(split.train),
        "train_frauds": int(is_fraud[split.train].sum()),
        "test_rows": len(split.test),
        "test_frauds": int(is_fraud[split.test].sum()),
    }
    return {
        name: {"counted": counted[name], "published": number, "equal": counted[name] == number}
        for name, number in published.items()
    }


def _finish(
    config: FraudConfig,
    rows: dict[str, list[dict[str, Any]]],
    *,
    counts: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Put the result together and write it."""
    targets = [
        target.describe() for target in build_targets(rows["single_split"], rows["prequential"])
    ]
    result = {
        "environment": describe_environment(),
        "seconds_total": round(seconds, 1),
        "rows": [
            {"protocol": protocol, **row} for protocol, measured in rows.items() for row in measured
        ],
        "targets": targets,
        "counts": counts,
        "single_split": build_table(rows["single_split"]),
        "prequential": build_table(rows["prequential"]),
        "settings": build_settings(rows["prequential"]),
        "ablations": build_table(rows["ablations"]),
        "published": build_table(rows["published_only"]),
        "held_to": {
            item["name"]: {key: item[key] for key in ("value", "target", "met")} for item in targets
        },
    }
    result["wrote"] = write_results(config.runs / "handbook", result, rows=rows)
    return result | {"next": "make docs (writes these tables into docs/handbook.md)"}
