"""Features and matured labels become checked, calibrated, registered fraud models: the train stage.

The order is the point: leaks are looked for before anything is fitted, candidates are compared on
prequential folds, calibration and thresholds come from a later slice, and only then is the test
period looked at, once, for the winner and the rest alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import read_json
from configs.progress import show_progress
from configs.schema import CostSection, FraudConfig
from training.artefact import SPEC_FILE, ModelSpec, save_artefact
from training.bootstrap import CustomerBootstrap, draw_customers
from training.candidates import Budget, Candidate, build_candidate
from training.evaluation import (
    compare_average_precision,
    evaluate_decisions,
    evaluate_parts,
    evaluate_scores,
    find_patterns,
    find_slices,
    score_baselines,
)
from training.fraud_material import Material, load_material
from training.leakage import check_average_precision, check_feature_importance
from training.metrics import expected_calibration_error
from training.operating_point import Prices, Thresholds, choose_thresholds
from training.registry import (
    CHALLENGER,
    CHAMPION,
    RunRecord,
    find_version,
    get_model,
    get_tracking_uri,
    log_run,
    register,
    set_alias,
)
from training.report import draw_candidate, trace_candidate, trace_comparison, write_report
from training.scorers import MODEL_FILES

MAX_REFERENCE_ROWS = 20_000
NUM_GOLDEN_ROWS = 32


@dataclass(frozen=True)
class _Judged:
    """A candidate, its operating point and what the test period said about it."""

    candidate: Candidate
    thresholds: Thresholds
    metrics: dict[str, Any]
    decisions: dict[str, Any]
    patterns: dict[str, dict[str, Any]]
    slices: dict[str, dict[str, Any]]


def run_train(
    config: FraudConfig,
    *,
    now: pd.Timestamp | None = None,
    only: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the stage: split, check, fit, compare, calibrate, evaluate, register.

    Args:
        config: Everything there is to say; ``config.runs`` holds the data and the feature store.
        now: The instant at which training runs, UTC; nothing later is read. By default just after
            the last transaction.
        only: Fit this kind of model alone, for retraining.
        params: With ``only``: fit with these parameters (those in a model's ``model.json``) instead
            of searching.

    Returns:
        ``models`` and ``baselines`` by name, ``comparison`` of the winner with the others,
        ``champion`` and ``challenger`` (``name`` and ``version``, or ``None``), ``split``,
        ``features``, ``operating_point``, ``patterns`` and ``slices`` of the winner,
        ``leak_checks``, ``seconds`` by part, ``wrote`` and ``next``.

    Raises:
        FileNotFoundError: If an earlier stage has not run.
        ValueError: If ``only`` is unknown, the history is too short, or a leak alarm goes off.
    """
    if only is not None and only not in MODEL_FILES:
        raise ValueError(f"unknown model '{only}'; it must be one of: {', '.join(MODEL_FILES)}")
    if params is not None and only is None:
        raise ValueError("params need only: they belong to one kind of model")
    clock = _Clock()
    material = load_material(config, now=now)
    clock.stop("features_and_leak_checks")
    candidates = []
    for kind in MODEL_FILES if only is None else (only,):
        candidates.append(_fit(kind, material, config=config, params=params))
        clock.stop(kind)
    candidates.sort(key=lambda candidate: candidate.selection_score, reverse=True)
    with show_progress("Evaluating on the test period", total=len(candidates)) as advance:
        scores = {c.kind: c.predict(material.test.matrix) for c in candidates}
        scores |= score_baselines(
            material.test, train=material.training.train, calibration=material.training.calibration
        )
        bootstrap = draw_customers(
            material.test.transactions["customer_id"],
            num_resamples=config.training.num_bootstrap,
            seed=config.seed,
        )
        judged = []
        for candidate in candidates:
            judged.append(_judge(candidate, scores, material, bootstrap, config=config))
            advance(1)
        baselines = {
            name: evaluate_scores(material.test, scores[name], bootstrap=bootstrap)
            for name in scores
            if name not in {c.kind for c in candidates}
        }
        comparison = compare_average_precision(material.test, scores, bootstrap=bootstrap)
    clock.stop("evaluation")
    folder = config.runs / "training" / ("first" if only is None else "retrained")
    wrote = _write_models(folder, judged, material, scores, config=config)
    clock.stop("report_and_artefacts")
    aliases = _register(folder, judged, material, config=config)
    clock.stop("registry")
    best = judged[0]
    return {
        "models": {item.candidate.kind: _tabulate(item) for item in judged},
        "baselines": baselines,
        "comparison": {"of": best.candidate.kind, "over": comparison},
        **aliases,
        "operating_point": best.decisions,
        "patterns": best.patterns,
        "slices": best.slices,
        "split": material.split.describe(),
        "features": list(material.training.encoding.features),
        "dropped": material.dropped,
        "leak_checks": material.leak_checks,
        "seconds": clock.seconds,
        "wrote": [*(str(path) for path in wrote), get_tracking_uri(config.runs)],
        "next": "throughline fraud serve",
    }


class _Clock:
    """Seconds by part, for the result."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def stop(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = round(now - self._started, 2)
        self._started = now


def _fit(
    kind: str, material: Material, *, config: FraudConfig, params: Mapping[str, Any] | None
) -> Candidate:
    """Build a candidate and sound the alarms that need one."""
    training = config.training
    budget = Budget(training.num_trials, training.max_epochs, config.seed)
    candidate = build_candidate(kind, material.training, budget=budget, parameters=params)
    check_feature_importance(
        candidate.importance, max_share=training.leaks.max_feature_importance_share
    )
    _check_ceiling(candidate.selection_score, kind, config)
    return candidate


def _check_ceiling(average_precision: float, kind: str, config: FraudConfig) -> None:
    ceiling = config.training.leaks.max_average_precision
    check_average_precision(average_precision, model=kind, max_average_precision=ceiling)


def _judge(
    candidate: Candidate,
    scores: Mapping[str, np.ndarray],
    material: Material,
    bootstrap: CustomerBootstrap,
    *,
    config: FraudConfig,
) -> _Judged:
    """Choose the operating point on the calibration slice; measure everything on the test."""
    calibration, test, costs = material.training.calibration, material.test, config.training.costs
    own = scores[candidate.kind]
    thresholds = choose_thresholds(
        candidate.predict(calibration.matrix),
        is_fraud=calibration.is_fraud,
        amounts=calibration.amounts,
        days=calibration.days,
        prices=_prices(costs),
        daily_review_capacity=costs.daily_review_capacity,
    )
    metrics = evaluate_scores(test, own, bootstrap=bootstrap)
    _check_ceiling(metrics["average_precision"], candidate.kind, config)
    raw = 1.0 / (1.0 + np.exp(-candidate.scorer.margins(test.matrix)))
    metrics["uncalibrated_calibration_error"] = expected_calibration_error(test.is_fraud, raw)
    slices = find_slices(
        test, encoding=material.training.encoding, known_frauds=material.known_frauds
    )
    return _Judged(
        candidate,
        thresholds,
        metrics,
        decisions=evaluate_decisions(
            test,
            own,
            thresholds=thresholds,
            prices=_prices(costs),
            daily_review_capacity=costs.daily_review_capacity,
        ),
        patterns=evaluate_parts(test, own, parts=find_patterns(test), bootstrap=bootstrap),
        slices=evaluate_parts(test, own, parts=slices, bootstrap=bootstrap),
    )


def _prices(costs: CostSection) -> Prices:
    return Prices(costs.review_fee, costs.false_decline_goodwill)


def _tabulate(item: _Judged) -> dict[str, Any]:
    folds = item.candidate.fold_average_precisions
    return {
        **item.metrics,
        "fold_average_precision": item.candidate.selection_score,
        "fold_average_precisions": list(folds),
        "cost_per_day": item.decisions["cost_per_day"],
        "parameters": item.candidate.parameters,
    }


def _write_models(
    folder: Path,
    judged: list[_Judged],
    material: Material,
    scores: Mapping[str, np.ndarray],
    *,
    config: FraudConfig,
) -> list[Path]:
    """Write each model's artefact, and the curves and pictures of them all."""
    wrote = []
    for item in judged:
        wrote.append(folder / item.candidate.kind)
        save_artefact(
            wrote[-1],
            spec=_specify(item, material),
            content=item.candidate.content,
            golden_features=_choose_golden_rows(material),
            reference_features=_sample_reference(material, seed=config.seed),
        )
    return wrote + write_report(
        folder,
        comparison=trace_comparison(material.test, scores),
        candidates={item.candidate.kind: _trace(item, material, config) for item in judged},
        winner=judged[0].candidate.kind,
    )


def _trace(item: _Judged, material: Material, config: FraudConfig) -> dict[str, Any]:
    return trace_candidate(
        item.candidate,
        material.test,
        thresholds=item.thresholds,
        prices=_prices(config.training.costs),
    )


def _specify(item: _Judged, material: Material) -> ModelSpec:
    encoding, train = material.training.encoding, material.split.train
    return ModelSpec(
        kind=item.candidate.kind,
        encoding=encoding,
        calibration=item.candidate.calibration,
        thresholds=item.thresholds,
        request_features=tuple(n for n in encoding.features if n in material.request_features),
        train_start_time=train.start_time.isoformat(),
        train_end_time=train.end_time.isoformat(),
        data_hash=material.data_hash,
        metrics=item.metrics,
        parameters=item.candidate.parameters,
    )


def _choose_golden_rows(material: Material) -> pd.DataFrame:
    """Take rows spread over the test period, and one of which nothing is known."""
    features = material.features
    spread = np.linspace(0, len(features) - 1, NUM_GOLDEN_ROWS).astype(int)
    rows = features.iloc[spread][list(material.training.encoding.features)]
    nothing = pd.DataFrame({name: [None] for name in rows.columns})
    return pd.concat([rows.astype(object), nothing.astype(object)], ignore_index=True)


def _sample_reference(material: Material, *, seed: int) -> pd.DataFrame:
    """Take recent rows the model was not fitted on, so that their scores are as when serving."""
    recent = material.features[
        material.features["event_time"] >= material.split.calibration.start_time
    ]
    return recent.sample(min(len(recent), MAX_REFERENCE_ROWS), random_state=seed).sort_index()


def _register(
    folder: Path, judged: list[_Judged], material: Material, *, config: FraudConfig
) -> dict[str, dict[str, str] | None]:
    """Log every model; register the best, as champion where there is none, else as challenger."""
    encoding = material.training.encoding
    run_ids = []
    with show_progress("Writing to MLflow", total=len(judged)) as advance:
        for item in judged:
            artefact = folder / item.candidate.kind
            record = _describe(item, material, config)
            run_ids.append(log_run(config.runs, record, artefact=artefact, encoding=encoding))
            advance(1)
    best = {"name": judged[0].candidate.kind, "version": register(config.runs, run_ids[0])}
    if find_version(config.runs, CHAMPION) is None:
        set_alias(config.runs, CHAMPION, version=best["version"])
        return {"champion": best, "challenger": None}
    set_alias(config.runs, CHALLENGER, version=best["version"])
    version, place = get_model(config.runs, CHAMPION)
    return {
        "champion": {"name": read_json(place / SPEC_FILE)["kind"], "version": version},
        "challenger": best,
    }


def _describe(item: _Judged, material: Material, config: FraudConfig) -> RunRecord:
    """Say what MLflow should keep of a model."""
    numbers = {
        name: value
        for name, value in {**_tabulate(item), **item.decisions}.items()
        if isinstance(value, int | float)
    }
    return RunRecord(
        name=item.candidate.kind,
        parameters={
            **item.candidate.parameters,
            "train_start_time": material.split.train.start_time.isoformat(),
            "train_end_time": material.split.train.end_time.isoformat(),
            "data_hash": material.data_hash,
            "num_features": len(material.training.encoding.features),
        },
        metrics=numbers,
        curves=item.candidate.curves,
        pictures=draw_candidate(item.candidate.kind, _trace(item, material, config)),
        documents={
            "features": {
                "features": list(material.training.encoding.features),
                "dropped": material.dropped,
            },
            "evaluation": {"patterns": item.patterns, "slices": item.slices},
            "split": material.split.describe(),
        },
        tags={"kind": item.candidate.kind},
    )
