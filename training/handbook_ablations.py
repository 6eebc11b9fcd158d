"""Three mistakes made on purpose, so that what a leak looks like is known before one is met.

Each trains the same XGBoost on the same weeks as the honest run and differs in one thing: which
transactions are held out, which cards are left in the test, or when a terminal's labels are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from features.handbook import build_handbook_features
from training.handbook_models import make_xgboost, score_settings
from training.handbook_protocol import Split, assess, split_weeks
from training.handbook_published import ABLATIONS
from training.handbook_rerun import Advance, Material, average_folds, run_beside

SETTINGS = {"n_estimators": 100, "learning_rate": 0.1, "max_depth": 3}
"""The published optimum on the test folds; its honest average precision is the re-run's .683."""
NUM_SHUFFLES = 4


def run_ablations(honest: Material, *, first_day: int, advance: Advance) -> list[dict[str, Any]]:
    """Measure what each mistake adds to average precision.

    Args:
        honest: Transactions and the handbook's 15 inputs.
        first_day: First day of the training week.
        advance: Called with 1 after each fit.

    Returns:
        A row per ablation: its metrics, the published re-run's average precision and the gain over
        the honest run. The random split's are means over ``NUM_SHUFFLES`` shuffles.
    """
    split = split_weeks(honest.transactions, first_day=first_day)
    unfiltered = split_weeks(honest.transactions, first_day=first_day, drop_known_cards=False)
    transactions = honest.transactions
    early, day_old = (
        replace(honest, inputs=build_handbook_features(transactions, delay_days=days).to_numpy())
        for days in (0, 1)
    )
    tasks = [
        ("honest", honest, split),
        *(("random split", honest, _shuffle(unfiltered, seed=k)) for k in range(NUM_SHUFFLES)),
        ("known cards kept in the test", honest, unfiltered),
        ("terminal risk without the label delay", early, split),
        ("terminal risk from labels a day old", day_old, split),
    ]
    measured: dict[str, list[dict[str, float]]] = {}
    for (name, *_), metrics in zip(
        tasks, run_beside(_measure, tasks, advance=advance), strict=True
    ):
        measured.setdefault(name, []).append(metrics)
    means = {name: average_folds(found) for name, found in measured.items()}
    return [_compare(name, found, honest=means["honest"]) for name, found in means.items()]


def _measure(task: tuple[str, Material, Split]) -> dict[str, float]:
    _, material, split = task
    scores = score_settings(
        lambda: make_xgboost(**SETTINGS),
        (),
        train=material.read_train(split),
        test_matrix=material.inputs[split.test],
    )
    return assess(material.transactions, split.test, scores[""])


def _shuffle(split: Split, *, seed: int) -> Split:
    """Deal the rows of both weeks to training and test at random, half each."""
    rows = np.concatenate([split.train, split.test])
    rows = np.random.default_rng(seed).permutation(rows)
    half = len(rows) // 2
    return Split(np.sort(rows[:half]), np.sort(rows[half:]))


def _compare(
    name: str, metrics: Mapping[str, float], *, honest: Mapping[str, float]
) -> dict[str, Any]:
    value, published = metrics["average_precision"], ABLATIONS.get(name)
    return {
        "name": name,
        **metrics,
        "average_precision_published": published,
        "average_precision_difference": None if published is None else value - published,
        "average_precision_gain": value - honest["average_precision"],
    }
