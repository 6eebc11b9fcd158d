"""Features and matured labels become checked, calibrated, registered fraud models: the train stage.

The order is the point: leaks are looked for before anything is fitted, candidates are compared on
prequential folds, calibration and thresholds come from a later slice, and only then is the test
period looked at, once, for the winner and the rest alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from configs.progress import show_progress
from configs.schema import FraudConfig
from training.candidates import Budget, Candidate, build_candidate
from training.fallback import Fallback, fit_fallback
from training.fraud_judging import check_ceiling, describe_winner, judge_candidates
from training.fraud_material import Material, load_material
from training.fraud_prices import read_prices
from training.fraud_records import register_models, write_artefacts, write_curves
from training.leakage import check_feature_importance
from training.registry import get_database_path
from training.scorers import MODEL_FILES


def run_train(
    config: FraudConfig,
    *,
    now: pd.Timestamp | None = None,
    only: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    outcome_shares: pd.Series[float] | None = None,
) -> dict[str, Any]:
    """Run the stage: split, check, fit, compare, calibrate, evaluate, register.

    Args:
        config: Everything there is to say; ``config.runs`` holds the data and the feature store.
        now: The instant at which training runs, UTC; nothing later is read. By default the end of
            the last transaction's day.
        only: Fit this kind of model alone, for retraining.
        params: With ``only``: fit with these parameters (those in a model's ``model.json``) instead
            of searching.
        tags: Of the version registered, by name.
        outcome_shares: With which chance each transaction's outcome is seen, in [0, 1], by
            ``transaction_id``; 1 where it says nothing. Rows at 0 (declined) are left out of every
            slice, whatever their label says; the others count 1 / chance times, rounded.

    Returns:
        ``models``, ``baselines`` and ``fallbacks`` (what answers without history) by name;
        ``ceilings`` no model can pass; ``champion`` and ``challenger`` (``name`` and ``version``,
        or ``None``); of the winner ``comparison``, ``operating_point``, ``patterns`` and
        ``slices``; ``split``, ``features``, ``dropped``, ``leak_checks``, ``seconds`` by part,
        ``wrote`` and ``next``.

    Raises:
        FileNotFoundError: If an earlier stage has not run.
        ValueError: If ``only`` is unknown, the history is too short, or a leak alarm goes off.
    """
    if only is not None and only not in MODEL_FILES:
        raise ValueError(f"unknown model '{only}'; it must be one of: {', '.join(MODEL_FILES)}")
    if params is not None and only is None:
        raise ValueError("params belong to one kind of model: say which with only")
    clock = _Clock()
    material = load_material(config, now=now, outcome_shares=outcome_shares)
    clock.stop("features_and_leak_checks")
    candidates: dict[str, Candidate] = {}
    for kind in MODEL_FILES if only is None else (only,):
        candidates[kind] = _fit(kind, material, config=config, params=params, fitted=candidates)
        clock.stop(kind)
    fallback = _fit_fallback(material, config=config)
    clock.stop("fallback")
    judgement = judge_candidates(
        list(candidates.values()), material, fallback=fallback, config=config
    )
    clock.stop("evaluation")
    folder = config.runs / "training"
    if only is not None:
        folder = folder / "retrained"
    wrote, pictures = write_curves(folder, judgement, material, config=config)
    wrote += write_artefacts(folder, judgement, material, seed=config.seed)
    clock.stop("report_and_artefacts")
    aliases = register_models(
        folder, judgement, material, pictures=pictures, config=config, tags=tags
    )
    clock.stop("registry")
    return {
        "models": {item.kind: item.tabulate() for item in judgement.judged},
        "baselines": judgement.baselines,
        "fallbacks": judgement.fallbacks,
        **aliases,
        **describe_winner(judgement),
        "split": material.split.describe(),
        "features": list(material.training.encoding.features),
        "dropped": material.dropped,
        "leak_checks": material.leak_checks,
        "seconds": clock.seconds,
        "wrote": [str(path) for path in (*wrote, get_database_path(config.runs))],
        "next": "throughline fraud serve",
    }


def _fit(
    kind: str,
    material: Material,
    *,
    config: FraudConfig,
    params: Mapping[str, Any] | None,
    fitted: Mapping[str, Candidate],
) -> Candidate:
    """Build a candidate and sound the alarms that need one."""
    training = config.training
    budget = Budget(training.num_trials, training.max_epochs, config.seed)
    candidate = build_candidate(
        kind, material.training, budget=budget, parameters=params, fitted=fitted
    )
    check_feature_importance(
        candidate.importance, max_share=training.leaks.max_feature_importance_share
    )
    check_ceiling(candidate.selection_score, model=kind, config=config)
    return candidate


def _fit_fallback(material: Material, *, config: FraudConfig) -> Fallback:
    with show_progress("Fitting the model of the request alone"):
        return fit_fallback(
            material.training,
            request_features=material.request_features,
            prices=read_prices(config),
            daily_review_capacity=config.training.costs.daily_review_capacity,
            seed=config.seed,
        )


class _Clock:
    """Seconds by part, for the result."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def stop(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = round(now - self._started, 2)
        self._started = now
