"""Our own pipeline in the handbook's protocol: better inputs, LightGBM, chosen before the test.

The same training weeks, the same label delay, the same cards left out. The inputs are the
handbook's 15 and ``features.handbook_signals``, which look back to the start of the data but never
past ``t``, nor at a label younger than seven days. Settings are chosen on the validation folds,
whose labels are all known by the day the first test week begins; the test folds are looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np
from sklearn.metrics import roc_auc_score

from data.handbook import MAX_HONEST_AMOUNT
from features.windows import Floats
from training.handbook_protocol import Split, assess
from training.handbook_rerun import (
    Advance,
    Material,
    Row,
    average_folds,
    build_row,
    list_folds,
    run_beside,
)

NAME = "LightGBM on our inputs"
UNANNOUNCED = "roc_auc_unannounced"
GRID = tuple(
    {"num_leaves": leaves, "feature_fraction": fraction, "min_data_in_leaf": 40}
    for leaves in (7, 15)
    for fraction in (0.25, 0.5)
)
NUM_TREES = (100, 150, 200)
SEARCH_SEEDS, TEST_SEEDS = (0, 1), (0, 1, 2, 3, 4)
FIXED = {
    "objective": "binary",
    "learning_rate": 0.03,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def run_pipeline(
    material: Material,
    *,
    validation: Sequence[Split],
    test: Sequence[Split],
    advance: Advance,
) -> Row:
    """Choose the settings on the validation folds, judge them on the test folds.

    Args:
        material: Transactions and all our inputs.
        validation: Folds to choose on, by mean average precision.
        test: Later folds; each model is the mean of ``TEST_SEEDS``'s log-odds.
        advance: Called with 1 per setting and fold searched, and per test fold.

    Returns:
        A row as ``handbook_rerun.rerun_prequential`` gives, without published figures.
    """
    found = _search(material, validation, advance=advance)
    chosen = max(found, key=lambda key: average_folds(found[key])["average_precision"])
    place, num_trees = chosen

    def measure(fold: Split) -> dict[str, float]:
        (scores,) = _score(material, fold, GRID[place], num_trees=(num_trees,), seeds=TEST_SEEDS)
        unannounced = judge_unannounced(material, fold, scores)
        return _judge(material, fold, scores) | {UNANNOUNCED: unannounced}

    folds = run_beside(measure, test, advance=advance)
    return {
        **build_row(NAME, average_folds(folds), None),
        "settings": describe_settings(GRID[place], num_trees),
        "is_chosen_here": True,
        **list_folds(folds, validation=found[chosen]),
    }


def _search(
    material: Material, folds: Sequence[Split], *, advance: Advance
) -> dict[tuple[int, int], list[dict[str, float]]]:
    """Judge every place of the grid and number of trees on every fold."""
    tasks = [(place, fold) for place in range(len(GRID)) for fold in folds]

    def judge(task: tuple[int, Split]) -> list[dict[str, float]]:
        place, fold = task
        scored = _score(material, fold, GRID[place], num_trees=NUM_TREES, seeds=SEARCH_SEEDS)
        return [_judge(material, fold, scores) for scores in scored]

    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    for (place, _), judged in zip(tasks, run_beside(judge, tasks, advance=advance), strict=True):
        for num_trees, metrics in zip(NUM_TREES, judged, strict=True):
            found.setdefault((place, num_trees), []).append(metrics)
    return found


def judge_unannounced(material: Material, fold: Split, scores: Floats) -> float:
    """Measure how well frauds are told apart that nothing known could have announced.

    At a terminal without any known fraud, a compromised terminal's transaction of an ordinary
    amount looks like every other: a model without a leak can only guess, 0.5.

    Returns:
        ROC AUC among the test's ordinary amounts at terminals without a known fraud.
    """
    judged = material.transactions.iloc[fold.test]
    known_risk = material.inputs[fold.test, material.names.index("terminal_risk_60d")]
    scenario = judged["scenario"].to_numpy()
    is_asked = (known_risk == 0) & (judged["amount"].to_numpy() <= MAX_HONEST_AMOUNT)
    is_asked &= np.isin(scenario, (0, 2))
    return float(roc_auc_score(scenario[is_asked] == 2, scores[is_asked]))


def describe_settings(settings: Mapping[str, Any], num_trees: int) -> str:
    """Put settings into words, as ``100 trees, num leaves 7``."""
    words = (f"{key.replace('_', ' ')} {value}" for key, value in settings.items())
    return ", ".join((f"{num_trees} trees", *words))


def _judge(material: Material, fold: Split, scores: Floats) -> dict[str, float]:
    return assess(material.transactions, fold.test, scores)


def _score(
    material: Material,
    fold: Split,
    settings: Mapping[str, Any],
    *,
    num_trees: tuple[int, ...],
    seeds: tuple[int, ...],
) -> Iterator[Floats]:
    """Fit one LightGBM per seed; yield their mean log-odds after each number of trees."""
    matrix, is_fraud = material.read_train(fold)
    boosters = [
        lightgbm.train(
            {**FIXED, **settings, "seed": seed},
            lightgbm.Dataset(matrix, is_fraud),
            num_boost_round=max(num_trees),
        )
        for seed in seeds
    ]
    test_matrix = material.inputs[fold.test]
    for num in num_trees:
        margins = [
            booster.predict(test_matrix, raw_score=True, num_iteration=num, num_threads=1)
            for booster in boosters
        ]
        yield np.mean(margins, axis=0)
