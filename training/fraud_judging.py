"""Candidates meet the test period, once: metrics, decisions, baselines and who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.progress import show_progress
from configs.schema import FraudConfig
from training.bootstrap import CustomerBootstrap, draw_customers
from training.calibration import IDENTITY
from training.candidates import Candidate
from training.encoding import Floats
from training.evaluation import (
    compare_average_precision,
    evaluate_cost,
    evaluate_decisions,
    evaluate_parts,
    evaluate_scores,
    find_patterns,
    find_slices,
    score_baselines,
)
from training.fallback import Fallback
from training.fraud_material import Material
from training.fraud_prices import read_prices
from training.leakage import check_average_precision
from training.metrics import expected_calibration_error
from training.operating_point import Thresholds, choose_thresholds, measure_costs


@dataclass(frozen=True)
class Judged:
    """A candidate, its operating point and what the test period said about it.

    Attributes:
        candidate: The model.
        thresholds: Chosen on the calibration slice.
        metrics: By name, with intervals.
        decisions: What its decisions would have cost.
        patterns: Rank metrics by fraud pattern.
        slices: Rank metrics by group of transactions.
    """

    candidate: Candidate
    thresholds: Thresholds
    metrics: dict[str, Any]
    decisions: dict[str, Any]
    patterns: dict[str, dict[str, Any]]
    slices: dict[str, dict[str, Any]]

    @property
    def kind(self) -> str:
        """The kind of model."""
        return self.candidate.kind

    def tabulate(self) -> dict[str, Any]:
        """Return what a table of models shows, and what fits the same model again."""
        return {
            **self.metrics,
            "fold_average_precision": self.candidate.selection_score,
            "fold_average_precisions": list(self.candidate.fold_average_precisions),
            "cost_per_day": self.decisions["cost_per_day"],
            "parameters": self.candidate.parameters,
        }


@dataclass(frozen=True)
class Judgement:
    """All candidates, best first by their folds, beside the baselines.

    Attributes:
        judged: At least one.
        baselines: Metrics by baseline.
        comparison: How much the best one's average precision gains over each other score.
        scores: Probabilities on the test period, by candidate or baseline.
        ceilings: What a model that knew the truth would reach, of metrics that cannot reach 1.
        fallback: What answers without history, whichever candidate serves.
        fallbacks: Metrics and decisions of its two parts: what being degraded costs.
    """

    judged: tuple[Judged, ...]
    baselines: dict[str, dict[str, Any]]
    comparison: dict[str, dict[str, Any]]
    scores: dict[str, Floats]
    ceilings: dict[str, float]
    fallback: Fallback
    fallbacks: dict[str, dict[str, Any]]

    @property
    def best(self) -> Judged:
        """The candidate that did best on the folds, whatever the test said."""
        return self.judged[0]


def judge_candidates(
    candidates: Sequence[Candidate],
    material: Material,
    *,
    fallback: Fallback,
    config: FraudConfig,
) -> Judgement:
    """Measure candidates, fallback and baselines on the test period, on the same resamples.

    Args:
        candidates: At least one.
        material: The test period, and the slices before it.
        fallback: Fitted on the same rows.
        config: Costs, ceilings, the number of resamples and the seed.

    Returns:
        The judgement; its order comes from the folds alone.

    Raises:
        LeakAlarm: If an average precision is beyond belief.
    """
    ranked = sorted(candidates, key=lambda candidate: candidate.selection_score, reverse=True)
    test, training = material.test, material.training
    scores = {candidate.kind: candidate.predict(test.matrix) for candidate in ranked}
    baseline_scores = score_baselines(test, train=training.train)
    bootstrap = draw_customers(
        test.transactions["customer_id"],
        num_resamples=config.training.num_bootstrap,
        seed=config.seed,
    )
    with show_progress("Evaluating on the test period", total=len(ranked)) as advance:
        judged = []
        for candidate in ranked:
            judged.append(_judge(candidate, scores[candidate.kind], material, bootstrap, config))
            advance(1)
        baselines = {
            name: evaluate_scores(test, values, bootstrap=bootstrap)
            for name, values in baseline_scores.items()
        }
        scores |= baseline_scores
        fallbacks = _judge_fallback(fallback, material, bootstrap, config)
        comparison = compare_average_precision(test, scores, bootstrap=bootstrap)
    oracle = evaluate_scores(test, test.is_fraud.astype(float), bootstrap=bootstrap)
    ceilings = {"card_precision_at_100": oracle["card_precision_at_100"]}
    return Judgement(tuple(judged), baselines, comparison, scores, ceilings, fallback, fallbacks)


def check_ceiling(average_precision: float, *, model: str, config: FraudConfig) -> None:
    """Sound the alarm for a result beyond belief."""
    ceiling = config.training.leaks.max_average_precision
    check_average_precision(average_precision, model=model, max_average_precision=ceiling)


def _judge(
    candidate: Candidate,
    scores: Floats,
    material: Material,
    bootstrap: CustomerBootstrap,
    config: FraudConfig,
) -> Judged:
    test = material.test
    metrics = evaluate_scores(test, scores, bootstrap=bootstrap)
    check_ceiling(metrics["average_precision"], model=candidate.kind, config=config)
    uncalibrated = IDENTITY.apply(candidate.scorer.margins(test.matrix))
    metrics["uncalibrated_calibration_error"] = expected_calibration_error(
        test.is_fraud, uncalibrated
    )
    thresholds = _choose_thresholds(candidate, material, config)
    prices = read_prices(config)
    metrics |= evaluate_cost(
        test, scores, thresholds=thresholds, prices=prices, bootstrap=bootstrap
    )
    slices = find_slices(
        test, encoding=material.training.encoding, known_frauds=material.known_frauds
    )
    return Judged(
        candidate,
        thresholds,
        metrics,
        decisions=evaluate_decisions(
            test,
            scores,
            thresholds=thresholds,
            prices=prices,
            daily_review_capacity=config.training.costs.daily_review_capacity,
        ),
        patterns=evaluate_parts(test, scores, parts=find_patterns(test), bootstrap=bootstrap),
        slices=evaluate_parts(test, scores, parts=slices, bootstrap=bootstrap),
    )


def _judge_fallback(
    fallback: Fallback, material: Material, bootstrap: CustomerBootstrap, config: FraudConfig
) -> dict[str, dict[str, Any]]:
    """Return the metrics of the request model and of the rule, and what their decisions cost."""
    test, prices = material.test, read_prices(config)
    num_days = max(1, len(np.unique(test.days)))
    scores = fallback.score(test)
    decisions = {
        "request_model": fallback.model.decide(scores["request_model"], test.amounts),
        "amount_threshold": fallback.spec.rule.decide(test.amounts),
    }
    found = {}
    for name, taken in decisions.items():
        costs = measure_costs(taken, is_fraud=test.is_fraud, amounts=test.amounts, prices=prices)
        found[name] = {
            **evaluate_scores(test, scores[name], bootstrap=bootstrap),
            "cost_per_day": float(costs.sum() / num_days),
        }
    return found


def _choose_thresholds(candidate: Candidate, material: Material, config: FraudConfig) -> Thresholds:
    calibration = material.training.calibration
    return choose_thresholds(
        candidate.predict(calibration.matrix),
        is_fraud=calibration.is_fraud,
        amounts=calibration.amounts,
        days=calibration.days,
        prices=read_prices(config),
        daily_review_capacity=config.training.costs.daily_review_capacity,
    )


def describe_winner(judgement: Judgement) -> Mapping[str, Any]:
    """Return what a result says of the winner alone, and of what could be reached."""
    best = judgement.best
    return {
        "ceilings": judgement.ceilings,
        "comparison": {"of": best.kind, "over": judgement.comparison},
        "operating_point": best.decisions,
        "patterns": best.patterns,
        "slices": best.slices,
    }
