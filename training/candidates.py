"""Training rows become candidates: each kind of model, fitted, calibrated and judged on folds.

All kinds get the same rows, the same folds and the same calibration slice. The test period is not
here, so nothing in this module can look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from configs.progress import show_progress
from training.calibration import Calibration, fit_calibration
from training.encoding import Booleans, Encoding, Floats
from training.gbdt import FoldRows, fit_trees, measure_importance, tune_trees
from training.linear import L2_PENALTY, fit_linear
from training.metrics import average_precision
from training.neural import FittedNetwork, NetworkSettings, fit_network
from training.rows import LabelledRows
from training.scorers import Scorer, load_scorer

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
        content: The model file's bytes.
        scorer: The same, ready to score.
        parameters: What it was fitted with.
        fold_average_precisions: One per fold, by models fitted on that fold's training part.
        calibration: From margin to probability.
        importance: Each feature's share; the shares sum to 1.
        curves: Numbers per epoch or trial, by name.
    """

    kind: str
    content: bytes
    scorer: Scorer
    parameters: dict[str, Any]
    fold_average_precisions: tuple[float, ...]
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
    content: bytes
    parameters: dict[str, Any]
    fold_average_precisions: tuple[float, ...]
    curves: dict[str, tuple[float, ...]]


def build_candidate(
    kind: str,
    rows: TrainingRows,
    *,
    budget: Budget,
    parameters: Mapping[str, Any] | None = None,
) -> Candidate:
    """Fit one kind of model, judge it on the folds and calibrate it.

    Args:
        kind: A key of ``training.scorers.MODEL_FILES``.
        rows: What it may see.
        budget: For the search and the epochs.
        parameters: Fit with these instead of searching; those of an earlier candidate.

    Returns:
        The candidate.
    """
    fit = _FITS[kind](rows, budget, parameters)
    scorer = load_scorer(kind, fit.content)
    margins = scorer.margins(rows.calibration.matrix)
    return Candidate(
        kind=kind,
        content=fit.content,
        scorer=scorer,
        parameters=fit.parameters,
        fold_average_precisions=fit.fold_average_precisions,
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
        scores = _judge_folds("logistic_regression", fit, rows.folds, advance)
        content = fit(rows.train.matrix, rows.train.is_fraud)
        advance(1)
    return _Fit(content, chosen, scores, {})


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
        parameters, scores = tuned.parameters, tuned.average_precisions
        curves = {"trial_average_precision": tuned.trial_scores}
    else:
        chosen = parameters

        def fit_fold(matrix: Floats, is_fraud: Booleans) -> bytes:
            return fit_trees(matrix, is_fraud, encoding=encoding, parameters=chosen, seed=seed)

        with show_progress("Fitting LightGBM on the folds", total=len(rows.folds)) as advance:
            scores, curves = _judge_folds("lightgbm", fit_fold, rows.folds, advance), {}
    with show_progress("Fitting LightGBM"):
        content = fit_trees(
            rows.train.matrix,
            rows.train.is_fraud,
            encoding=encoding,
            parameters=parameters,
            seed=seed,
        )
    return _Fit(content, dict(parameters), scores, curves)


def _fit_network(rows: TrainingRows, budget: Budget, parameters: Mapping[str, Any] | None) -> _Fit:
    changes = {"max_epochs": budget.max_epochs, "seed": budget.seed, **(parameters or {})}
    settings = NetworkSettings(**changes)

    def fit(matrix: Floats, is_fraud: Booleans) -> FittedNetwork:
        return fit_network(
            matrix, is_fraud, encoding=rows.encoding, settings=settings, advance=advance
        )

    total = settings.max_epochs * (len(rows.folds) + 1)
    with show_progress("Training the PyTorch network", total=total) as advance:
        scores = _judge_folds("pytorch", lambda x, y: fit(x, y).content, rows.folds)
        network = fit(rows.train.matrix, rows.train.is_fraud)
    curves = {"train_loss": network.train_losses, "valid_loss": network.valid_losses}
    plain = {**asdict(settings), "hidden_sizes": list(settings.hidden_sizes)}  # as JSON has it
    return _Fit(network.content, plain, scores, curves)


_FITS = {
    "logistic_regression": _fit_linear,
    "lightgbm": _fit_trees,
    "pytorch": _fit_network,
}


def _judge_folds(
    kind: str,
    fit: Callable[[Floats, Booleans], bytes],
    folds: Sequence[FoldRows],
    advance: Callable[[float], None] = lambda _folds: None,
) -> tuple[float, ...]:
    scores = []
    for fold in folds:
        scorer = load_scorer(kind, fit(fold.train_matrix, fold.train_is_fraud))
        scores.append(average_precision(fold.valid_is_fraud, scorer.margins(fold.valid_matrix)))
        advance(1)
    return tuple(scores)


def _measure_shares(
    kind: str, content: bytes, scorer: Scorer, rows: TrainingRows
) -> dict[str, float]:
    """Share of split gain for trees; of the mean absolute contribution for the others."""
    if kind == "lightgbm":
        return measure_importance(content, encoding=rows.encoding)
    step = max(1, len(rows.calibration) // NUM_EXPLAINED_ROWS)
    sizes = np.abs(scorer.contributions(rows.calibration.matrix[::step])).mean(axis=0)
    return dict(zip(rows.encoding.features, (sizes / (sizes.sum() or 1.0)).tolist(), strict=True))
