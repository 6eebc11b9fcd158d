"""Training rows become candidates: each kind of model, fitted, calibrated and judged on folds.

All kinds get the same rows, the same folds and the same calibration slice. The test period is not
here, so nothing in this module can look at it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from configs.progress import show_progress
from training.blend import TREE_WEIGHTS, judge_folds, weigh_margins
from training.calibration import Calibration, fit_calibration
from training.encoding import Booleans, Encoding, Floats
from training.gbdt import FoldRows, fit_trees, measure_importance, tune_trees
from training.linear import L2_PENALTY, fit_linear
from training.neural import FittedNetwork, NetworkSettings, fit_network
from training.rows import LabelledRows
from training.scorers import (
    BLEND_FILE,
    NETWORK_FILE,
    TREES_FILE,
    Content,
    Scorer,
    load_scorer,
)

NUM_EXPLAINED_ROWS = 500
"""Rows over which the importance of a model without trees is averaged."""


@dataclass(frozen=True)
class TrainingRows:
    """Everything a candidate may see."""

    train: LabelledRows
    folds: tuple[FoldRows, ...]
    calibration: LabelledRows
    encoding: Encoding


@dataclass(frozen=True)
class Budget:
    """How much searching and training is allowed, and the seed of all of it."""

    num_trials: int
    max_epochs: int
    seed: int


@dataclass(frozen=True)
class Candidate:
    """A fitted and calibrated model.

    Attributes:
        kind: A key of ``training.scorers.MODEL_FILES``.
        content: The model's file, or its files by name.
        scorer: The same, ready to score.
        parameters: What it was fitted with.
        fold_average_precisions: One per fold, by models fitted on that fold's training part.
        fold_margins: Those models' log-odds on each fold's validation rows.
        calibration: From margin to probability.
        importance: Each feature's share; the shares sum to 1.
        curves: Numbers per epoch or trial, by name.
    """

    kind: str
    content: Content
    scorer: Scorer
    parameters: dict[str, Any]
    fold_average_precisions: tuple[float, ...]
    fold_margins: tuple[Floats, ...]
    calibration: Calibration
    importance: dict[str, float]
    curves: dict[str, tuple[float, ...]]

    @property
    def selection_score(self) -> float:
        """Mean average precision over the folds: what decides between candidates."""
        return float(np.mean(self.fold_average_precisions))

    def predict(self, matrix: Floats) -> Floats:
        """Return calibrated probabilities for raw model columns."""
        return self.calibration.apply(self.scorer.margins(matrix))


@dataclass(frozen=True)
class _Fit:
    content: Content
    parameters: dict[str, Any]
    fold_margins: tuple[Floats, ...]
    curves: dict[str, tuple[float, ...]]
    fold_average_precisions: tuple[float, ...] | None = None


def build_candidate(
    kind: str,
    rows: TrainingRows,
    *,
    budget: Budget,
    parameters: Mapping[str, Any] | None = None,
    fitted: Mapping[str, Candidate] | None = None,
) -> Candidate:
    """Fit one kind of model, judge it on the folds and calibrate it.

    Args:
        kind: A key of ``training.scorers.MODEL_FILES``.
        rows: What it may see.
        budget: For the search and the epochs.
        parameters: Fit with these instead of searching; those of an earlier candidate.
        fitted: Candidates by kind, from the same rows, that a blend is made of; those it lacks
            are fitted for it.

    Returns:
        The candidate.
    """
    if kind == "blend":
        fit = _fit_blend(rows, budget, parameters, fitted or {})
    else:
        fit = _FITS[kind](rows, budget, parameters)
    scorer = load_scorer(kind, fit.content)
    margins = scorer.margins(rows.calibration.matrix)
    return Candidate(
        kind=kind,
        content=fit.content,
        scorer=scorer,
        parameters=fit.parameters,
        fold_average_precisions=fit.fold_average_precisions
        or judge_folds(rows.folds, fit.fold_margins),
        fold_margins=fit.fold_margins,
        calibration=fit_calibration(margins, rows.calibration.is_fraud),
        importance=_measure_shares(kind, fit.content, scorer, rows),
        curves=fit.curves,
    )


def _fit_linear(rows: TrainingRows, budget: Budget, parameters: Mapping[str, Any] | None) -> _Fit:
    del budget
    chosen = {"l2_penalty": L2_PENALTY, **(parameters or {})}

    def fit(matrix: Floats, is_fraud: Booleans) -> bytes:
        return fit_linear(matrix, is_fraud, encoding=rows.encoding, **chosen)

    with show_progress("Fitting logistic regression", total=len(rows.folds) + 1) as advance:
        margins = _validate_folds("logistic_regression", fit, rows.folds, advance)
        content = fit(rows.train.matrix, rows.train.is_fraud)
        advance(1)
    return _Fit(content, chosen, margins, {})


def _fit_trees(rows: TrainingRows, budget: Budget, parameters: Mapping[str, Any] | None) -> _Fit:
    seed, encoding = budget.seed, rows.encoding
    if parameters is None:
        with show_progress("Tuning LightGBM", total=budget.num_trials + 1) as advance:
            tuned = tune_trees(
                rows.folds,
                encoding=encoding,
                num_trials=budget.num_trials,
                seed=seed,
                advance=advance,
            )
        parameters, margins = tuned.parameters, tuned.fold_margins
        curves = {"trial_average_precision": tuned.trial_scores}
    else:
        chosen = parameters

        def fit_fold(matrix: Floats, is_fraud: Booleans) -> bytes:
            return fit_trees(matrix, is_fraud, encoding=encoding, parameters=chosen, seed=seed)

        with show_progress("Fitting LightGBM on the folds", total=len(rows.folds)) as advance:
            margins, curves = _validate_folds("lightgbm", fit_fold, rows.folds, advance), {}
    with show_progress("Fitting LightGBM"):
        content = fit_trees(
            rows.train.matrix,
            rows.train.is_fraud,
            encoding=encoding,
            parameters=parameters,
            seed=seed,
        )
    return _Fit(content, dict(parameters), margins, curves)


def _fit_network(rows: TrainingRows, budget: Budget, parameters: Mapping[str, Any] | None) -> _Fit:
    changes = {"max_epochs": budget.max_epochs, "seed": budget.seed, **(parameters or {})}
    settings = NetworkSettings(**changes)

    def fit(matrix: Floats, is_fraud: Booleans) -> FittedNetwork:
        return fit_network(
            matrix, is_fraud, encoding=rows.encoding, settings=settings, advance=advance
        )

    total = settings.max_epochs * (len(rows.folds) + 1)
    with show_progress("Training the PyTorch network", total=total) as advance:
        margins = _validate_folds("pytorch", lambda x, y: fit(x, y).content, rows.folds)
        network = fit(rows.train.matrix, rows.train.is_fraud)
    curves = {"train_loss": network.train_losses, "valid_loss": network.valid_losses}
    plain = {**asdict(settings), "hidden_sizes": list(settings.hidden_sizes)}  # as JSON has it
    return _Fit(network.content, plain, margins, curves)


def _fit_blend(
    rows: TrainingRows,
    budget: Budget,
    parameters: Mapping[str, Any] | None,
    fitted: Mapping[str, Candidate],
) -> _Fit:
    """Weigh the trees and the network; nothing is fitted that has been fitted already."""
    chosen = parameters or {}
    trees, network = (
        fitted[kind]
        if kind in fitted and parameters is None
        else build_candidate(kind, rows, budget=budget, parameters=chosen.get(kind))
        for kind in ("lightgbm", "pytorch")
    )
    weighing = weigh_margins(
        rows.folds,
        trees.fold_margins,
        network.fold_margins,
        weights=[chosen["tree_weight"]] if parameters else TREE_WEIGHTS,
    )
    assert isinstance(trees.content, bytes)
    assert isinstance(network.content, bytes)
    document = json.dumps({"tree_weight": weighing.tree_weight})
    return _Fit(
        {BLEND_FILE: document.encode(), TREES_FILE: trees.content, NETWORK_FILE: network.content},
        {
            "tree_weight": weighing.tree_weight,
            "lightgbm": trees.parameters,
            "pytorch": network.parameters,
        },
        weighing.fold_margins,
        {"weight_average_precision": weighing.weight_scores},
        weighing.average_precisions,
    )


_FITS = {
    "logistic_regression": _fit_linear,
    "lightgbm": _fit_trees,
    "pytorch": _fit_network,
}


def _validate_folds(
    kind: str,
    fit: Callable[[Floats, Booleans], bytes],
    folds: Sequence[FoldRows],
    advance: Callable[[float], None] = lambda _folds: None,
) -> tuple[Floats, ...]:
    """Fit each fold; return its validation rows' margins."""
    margins = []
    for fold in folds:
        scorer = load_scorer(kind, fit(fold.train_matrix, fold.train_is_fraud))
        margins.append(scorer.margins(fold.valid_matrix))
        advance(1)
    return tuple(margins)


def _measure_shares(
    kind: str, content: Content, scorer: Scorer, rows: TrainingRows
) -> dict[str, float]:
    """Share of split gain for trees; of the mean absolute contribution for the others."""
    if kind == "lightgbm" and isinstance(content, bytes):
        return measure_importance(content, encoding=rows.encoding)
    step = max(1, len(rows.calibration) // NUM_EXPLAINED_ROWS)
    sizes = np.abs(scorer.contributions(rows.calibration.matrix[::step])).mean(axis=0)
    return dict(zip(rows.encoding.features, (sizes / (sizes.sum() or 1.0)).tolist(), strict=True))
