"""Policies of retraining, side by side over months of several worlds, in minutes.

The real simulator, features, models, answers, late labels, monitor, loop, gate and rollout, run on
a calendar: ``monitoring.timelapse_replay`` has a day's order. This module spreads the worlds over
the cores and writes down what came of them.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from configs.environment import describe_environment
from configs.files import write_json, write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from monitoring.timelapse_models import Refit
from monitoring.timelapse_page import write_timelapse_page
from monitoring.timelapse_pictures import plot_world
from monitoring.timelapse_policies import list_policies
from monitoring.timelapse_result import judge_targets, list_losses
from monitoring.timelapse_run import WorldTask, replay_world
from monitoring.timelapse_witness import Train
from monitoring.timelapse_worlds import WorldPlan, plan_own_world, plan_worlds
from training.gbdt import STARTING_PARAMETERS

LEARNING_RATE = 0.1
"""Twice a search's usual one, for half the trees."""
WITNESSED = ("unchanged", "yours")
LIMITS = (
    "Average precision and cost are the oracle's, over transactions that ever get a label.",
    "Features made of labels (merchant_fraud_rate, merchant_category_risk) are computed from all"
    " labels, those of declined transactions too; training and monitoring never see the latter.",
    "A look compares fewer rows than the monitor's (timelapse.max_rows) and is taken every few days"
    " (look_every_days): it sees less, and later, than in production.",
    "Whole days are scored at once, so latency is not compared: its guard is silent here.",
    "The gate compares average precision and calibration; its guards on cost and slices are left to"
    " shadow, canary and watch. More of what would be declined is let through than in production"
    " (timelapse.explore_share): a week here holds a few hundred frauds, not thousands.",
)

_ticks: multiprocessing.Queue[int] | None = None
"""Of a worker process: where it counts its days."""


def run_timelapse(
    config: FraudConfig,
    *,
    refit: Refit,
    train: Train,
    only: Sequence[str] = (),
    transactions: Path | None = None,
    mapping: Path | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Replay every policy in every world, and write the result.

    Args:
        config: ``timelapse`` lays out the days; ``retraining`` and ``rollout`` are our policy.
        refit: ``training.fraud_refit.refit``.
        train: ``training.fraud.run_train``.
        only: Names of the worlds to replay; all if empty.
        transactions: The user's own file, as the only world.
        mapping: Which of its columns is which.
        processes: Worlds replayed at a time; as many as there are cores if not given.

    Returns:
        ``rows`` (one per world and policy), ``targets``, ``notes``, ``worlds`` (every day of every
        policy), ``seconds``, ``environment``, ``wrote`` and ``next``.

    Raises:
        ValueError: If a world's name is unknown, or the days do not fit.
    """
    started = time.perf_counter()
    plans = _choose_plans(config, only=only, transactions=transactions, mapping=mapping)
    folder = config.runs / "timelapse"
    parameters = {
        **STARTING_PARAMETERS,
        "learning_rate": LEARNING_RATE,
        "num_trees": config.timelapse.num_trees,
    }
    tasks = [
        WorldTask(
            config,
            plan,
            folder / "worlds" / plan.name,
            refit,
            parameters,
            train=train if plan.name in WITNESSED else None,
            transactions=transactions,
            mapping=mapping,
        )
        for plan in plans
    ]
    worlds = _replay(tasks, processes=processes or os.cpu_count() or 1)
    seconds = round(time.perf_counter() - started, 1)
    result: dict[str, Any] = {
        "served_days": max(world["num_days"] for world in worlds.values()),
        "rows": _tabulate(worlds),
        "targets": judge_targets(config, worlds, seconds=seconds),
        "notes": [*list_losses(worlds), *LIMITS],
        "seconds": seconds,
        "environment": describe_environment(),
        "worlds": worlds,
    }
    wrote = _write(folder, result)
    page = folder / "timelapse.html"
    return {**result, "wrote": [str(path) for path in wrote], "next": f"open {page}"}


def _choose_plans(
    config: FraudConfig, *, only: Sequence[str], transactions: Path | None, mapping: Path | None
) -> tuple[WorldPlan, ...]:
    assert (transactions is None) == (mapping is None), "the command line asks for both"
    if transactions is not None:
        return (plan_own_world(transactions),)
    plans = plan_worlds(config.timelapse)
    unknown = set(only) - {plan.name for plan in plans}
    if unknown:
        allowed = ", ".join(plan.name for plan in plans)
        raise ValueError(f"no world '{', '.join(sorted(unknown))}'; there are: {allowed}")
    return tuple(plan for plan in plans if not only or plan.name in only)


def _replay(tasks: Sequence[WorldTask], *, processes: int) -> dict[str, dict[str, Any]]:
    """Replay worlds, side by side where there is more than one process; their days move one bar."""
    config = tasks[0].config
    total = len(tasks) * len(list_policies(config)) * config.timelapse.served_days
    with show_progress("Replaying days", total=total) as advance:
        if min(processes, len(tasks)) == 1:
            return {task.plan.name: replay_world(task, advance=advance) for task in tasks}
        with _start_workers(min(processes, len(tasks))) as (workers, ticks):
            futures = [workers.submit(_replay_in_worker, task) for task in tasks]
            _follow(futures, ticks, advance)
            found = [future.result() for future in futures]
    return dict(zip([task.plan.name for task in tasks], found, strict=True))


def _follow(
    futures: Sequence[Future[dict[str, Any]]],
    ticks: multiprocessing.Queue[int],
    advance: Callable[[float], None],
) -> None:
    """Move the bar until all are done, or one has failed."""
    while not all(future.done() for future in futures):
        with suppress(queue.Empty):
            advance(ticks.get(timeout=0.5))
        if any(future.done() and future.exception() is not None for future in futures):
            return


@contextmanager
def _start_workers(
    num: int,
) -> Iterator[tuple[ProcessPoolExecutor, multiprocessing.Queue[int]]]:
    """Start worker processes; an error or Ctrl-C ends them at once."""
    context = multiprocessing.get_context("spawn")
    ticks: multiprocessing.Queue[int] = context.Queue()
    workers = ProcessPoolExecutor(
        num, mp_context=context, initializer=_set_ticks, initargs=(ticks,)
    )
    try:
        yield workers, ticks
    except BaseException:
        for process in list(workers._processes.values()):
            process.terminate()
        raise
    finally:
        workers.shutdown(cancel_futures=True)


def _set_ticks(ticks: multiprocessing.Queue[int]) -> None:
    global _ticks  # noqa: PLW0603 (a worker's own, set once before its first task)
    _ticks = ticks
    threadpool_limits(1)  # as many worlds as cores are under way: more threads only wait


def _replay_in_worker(task: WorldTask) -> dict[str, Any]:
    ticks = _ticks
    assert ticks is not None, "the initializer has run"
    return replay_world(task, advance=lambda days: ticks.put(int(days)))


def _tabulate(worlds: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per world and policy."""
    return [
        {"name": f"{world}: {policy}", "world": world, "policy": policy, **item["summary"]}
        for world, found in worlds.items()
        for policy, item in found["policies"].items()
    ]


def _write(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Write the result, the table, the pictures and the page, each whole."""
    paths = [folder / "timelapse.json", folder / "timelapse.csv"]
    write_json(paths[0], dict(result))
    with write_whole(paths[1]) as part:
        pd.DataFrame(result["rows"]).drop(columns="name").to_csv(part, index=False)
    pictures = {name: plot_world(world) for name, world in result["worlds"].items()}
    for name, svg in pictures.items():
        paths.append(folder / f"{name}.svg")
        with write_whole(paths[-1]) as part:
            part.write_text(svg, encoding="utf-8")
    paths.append(folder / "timelapse.html")
    write_timelapse_page(paths[-1], result=result, pictures=pictures)
    return paths
