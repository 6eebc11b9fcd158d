"""The handbook's two protocols, run again: every row beside the published one.

Single split: models with fixed settings. Prequential: settings chosen by average precision on
four weekly validation folds, then judged on four later test folds; the published settings are
judged beside them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from features.windows import Floats
from training.encoding import Booleans
from training.handbook_models import (
    Family,
    build_families,
    build_single_split_models,
    score_settings,
)
from training.handbook_protocol import METRICS, Split, assess
from training.handbook_published import PREQUENTIAL, SINGLE_SPLIT, Figures

Advance = Callable[[float], None]
Row = dict[str, Any]
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Material:
    """Transactions and what a model is told about each; shapes ``(rows,)`` and ``(rows, inputs)``.

    Attributes:
        transactions: As in ``data.handbook.HandbookWorld``.
        inputs: One row of numbers per transaction.
        names: What each column of ``inputs`` is.
    """

    transactions: pd.DataFrame
    inputs: Floats
    names: tuple[str, ...]

    def read_train(self, split: Split) -> tuple[Floats, Booleans]:
        """Read the inputs and truths to learn from."""
        truth = self.transactions["is_fraud"].to_numpy(dtype=bool)
        return self.inputs[split.train], truth[split.train]


def run_beside(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, advance: Advance
) -> list[Result]:
    """Run tasks beside each other, one per core, in order; each is its own single thread."""

    def run(task: Task) -> Result:
        result = work(task)
        advance(1)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(run, tasks))


def rerun_single_split(material: Material, split: Split, *, advance: Advance) -> list[Row]:
    """Fit the models of chapter 3 and judge them, a constant and a perfect oracle."""
    truth = material.transactions["is_fraud"].to_numpy(dtype=np.float64)[split.test]
    train, test_matrix = material.read_train(split), material.inputs[split.test]
    models = build_single_split_models()

    def score(name: str) -> Floats:
        return score_settings(models[name], (), train=train, test_matrix=test_matrix)[""]

    scores = dict(zip(models, run_beside(score, models, advance=advance), strict=True))
    scores |= {"constant": np.zeros(len(truth)), "perfect oracle": truth}
    return [
        build_row(name, assess(material.transactions, split.test, found), SINGLE_SPLIT[name])
        for name, found in scores.items()
    ]


def rerun_prequential(
    material: Material,
    *,
    validation: Sequence[Split],
    test: Sequence[Split],
    advance: Advance,
) -> list[Row]:
    """Choose each family's settings on the validation folds and judge them on the test folds.

    Returns:
        A row per family for the settings chosen here, and one for each published setting that is
        another; ``settings``, ``average_precision_validation`` and per-fold values included.
    """
    rows = []
    for name, family in build_families().items():
        found = judge_family(material, family, family.models, folds=validation, advance=advance)
        chosen = max(found, key=lambda label: average_folds(found[label])["average_precision"])
        wanted = dict.fromkeys((*family.published, chosen))
        fits = {key: make for key, make in family.models.items() if _needs(key, wanted)}
        tested = judge_family(material, family, fits, folds=test, advance=lambda _: None)
        for label in wanted:
            known = family.published.get(label) or (family.chosen_as if label == chosen else None)
            row = build_row(
                known or f"{name}, chosen here",
                average_folds(tested[label]),
                PREQUENTIAL[known] if known else None,
            )
            row |= {"settings": label, "is_chosen_here": label == chosen}
            rows.append(row | list_folds(tested[label], validation=found[label]))
    return rows


def judge_family(
    material: Material,
    family: Family,
    models: Mapping[str, Callable[[], Any]],
    *,
    folds: Sequence[Split],
    advance: Advance,
) -> dict[str, list[dict[str, float]]]:
    """Fit some of a family's models on every fold; return the metrics per fold, by settings."""

    def judge(task: tuple[str, Split]) -> dict[str, dict[str, float]]:
        key, fold = task
        scores = score_settings(
            models[key],
            family.num_trees,
            train=material.read_train(fold),
            test_matrix=material.inputs[fold.test],
        )
        return {
            f"{trees}{key}": assess(material.transactions, fold.test, found)
            for trees, found in scores.items()
        }

    tasks = [(key, fold) for key in models for fold in folds]
    judged: dict[str, list[dict[str, float]]] = {}
    for result in run_beside(judge, tasks, advance=advance):
        for label, metrics in result.items():
            judged.setdefault(label, []).append(metrics)
    return judged


def build_row(name: str, metrics: Mapping[str, float], published: Figures | None) -> Row:
    """Put measured metrics beside the published ones, and say by how much they differ."""
    row: Row = {"name": name, **metrics}
    for metric in METRICS:
        known = getattr(published, metric) if published else None
        row[f"{metric}_published"] = known
        row[f"{metric}_difference"] = None if known is None else metrics[metric] - known
    return row


def list_folds(
    test: Sequence[Mapping[str, float]], *, validation: Sequence[Mapping[str, float]]
) -> Row:
    """List the metrics test fold by test fold, the latest first, after the validation's mean."""
    validated = average_folds(validation)["average_precision"]
    by_fold = {f"{metric}_folds": [fold[metric] for fold in test] for metric in METRICS}
    return {"average_precision_validation": validated, **by_fold}


def average_folds(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average every metric over folds."""
    return {metric: float(np.mean([fold[metric] for fold in folds])) for metric in folds[0]}


def _needs(key: str, wanted: Iterable[str]) -> bool:
    return any(label == key or label.endswith(f"trees, {key}") for label in wanted)
