"""A decision to retrain becomes a challenger, a verdict on later matured days, perhaps a champion.

Invariant: the days a challenger is judged on lie after everything either model was fitted or
calibrated on, the label delay included, so the comparison is what serving would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_labels, load_transactions
from data.time_split import Slice
from features.store import open_feature_store, read_training_features
from monitoring.arm_guards import SLICES
from monitoring.gate_guards import guard_verdict
from monitoring.retrain import GateLimits, GateVerdict, compare_scores
from training.artefact import Artefact, load_artefact
from training.encoding import Floats
from training.operating_point import Prices, measure_costs
from training.registry import CHALLENGER, CHAMPION, get_champion, get_model, set_alias

Train = Callable[..., dict[str, Any]]
"""``train(config, now=, only=, params=)`` registers a challenger, as ``run_train`` does."""


def run_retraining(config: FraudConfig, *, now: pd.Timestamp, train: Train) -> dict[str, Any]:
    """Train a challenger, compare it with the champion on later matured days, promote or keep.

    Args:
        config: The fraud problem's configuration.
        now: As of when, UTC.
        train: Trains and registers a challenger; asked for the champion's kind of model with the
            champion's parameters, so that only the data differ.

    Returns:
        As ``describe_retraining``.

    Raises:
        ValueError: If training is stopped, by a leak alarm for example.
    """
    version, folder = get_champion(config.runs)
    champion = load_artefact(folder, version=version)
    train(config, now=now, only=champion.spec.kind, params=dict(champion.spec.parameters))
    challenger_version, challenger_folder = get_model(config.runs, CHALLENGER)
    challenger = load_artefact(challenger_folder, version=challenger_version)
    verdict = judge_challenger(config, champion=champion, challenger=challenger, now=now)
    if verdict.promote:
        set_alias(config.runs, CHAMPION, version=challenger_version)
    return describe_retraining(verdict, champion=version, challenger=challenger_version)


def judge_challenger(
    config: FraudConfig, *, champion: Artefact, challenger: Artefact, now: pd.Timestamp
) -> GateVerdict:
    """Compare two models on the newest ``training.test_days`` whose labels have matured.

    Args:
        config: The fraud problem's configuration.
        champion: What serves.
        challenger: What might.
        now: As of when, UTC.

    Returns:
        The verdict; no promotion if either model has seen those days.
    """
    delay = pd.Timedelta(days=config.data.label_delay_days)
    calibration = pd.Timedelta(days=config.training.calibration_days)
    end = now - delay
    window = Slice(end - pd.Timedelta(days=config.training.test_days), end, known_by_time=now)
    for model in (champion, challenger):
        seen_until = pd.Timestamp(model.spec.train_end_time) + calibration
        if seen_until + delay > window.start_time:
            reason = (
                f"version {model.version} was made from days until {seen_until:%Y-%m-%d}; as of "
                f"{now:%Y-%m-%d} too few later ones have matured to judge it on"
            )
            return GateVerdict(False, (reason,), num_rows=0, num_frauds=0)
    rows = _load_matured_rows(config, window)
    with show_progress(f"Comparing challenger and champion on {len(rows):,} transactions"):
        features = read_training_features(
            open_feature_store(config.runs), rows.drop(columns=["is_fraud", "label_time"])
        )
        scores = {model.version: model.predict(features) for model in (champion, challenger)}
        limits = GateLimits(
            confidence=config.monitoring.gate_confidence,
            margin=config.monitoring.gate_margin,
            min_frauds=config.monitoring.min_matured_frauds,
            max_brier_increase=config.monitoring.max_brier_increase,
        )
        verdict = compare_scores(
            rows["is_fraud"].to_numpy(dtype=bool),
            champion_scores=scores[champion.version],
            challenger_scores=scores[challenger.version],
            customer_id=rows["customer_id"],
            limits=limits,
            seed=config.seed,
        )
        judged = rows.assign(
            champion_score=scores[champion.version],
            challenger_score=scores[challenger.version],
            champion_cost=_price(config, champion, rows, scores[champion.version]),
            challenger_cost=_price(config, challenger, rows, scores[challenger.version]),
        )
        return guard_verdict(
            verdict,
            judged,
            slices=tuple(name for name in SLICES if name in rows),
            limits=limits,
            max_cost_increase=config.rollout.max_cost_increase,
            seed=config.seed,
        )


def _price(config: FraudConfig, model: Artefact, rows: pd.DataFrame, scores: Floats) -> Floats:
    """Price what a model's scores would have decided, account currency."""
    prices = config.training.costs
    amounts = rows["amount"].to_numpy(np.float64)
    return measure_costs(
        model.decide(scores, amounts),
        is_fraud=rows["is_fraud"].to_numpy(dtype=bool),
        amounts=amounts,
        prices=Prices(prices.review_fee, prices.false_decline_goodwill),
    )


def _load_matured_rows(config: FraudConfig, window: Slice) -> pd.DataFrame:
    """Load a slice's transactions, with ``is_fraud`` and ``label_time`` beside the contract's."""
    labels = load_labels(config.runs)[["transaction_id", "is_fraud", "label_time"]]
    labelled = load_transactions(config.runs).merge(labels, on="transaction_id", validate="1:1")
    is_inside = window.select(labelled["event_time"], label_time=labelled["label_time"])
    return labelled[is_inside].reset_index(drop=True)


def describe_retraining(
    verdict: GateVerdict | None, *, champion: str, challenger: str | None = None
) -> dict[str, Any]:
    """Return what came of a decision as JSON, with the same keys whether or not one trained.

    Args:
        verdict: The gate's; ``None`` where nothing was trained.
        champion: The version that served when the decision was taken.
        challenger: The version trained.

    Returns:
        ``triggered``, ``promoted``, ``version`` (what serves from now on), ``challenger``,
        ``average_precision_before`` (the champion's), ``average_precision_after`` (the
        challenger's, on the same rows), the rest of the gate's evidence, and its ``reasons``.

    >>> describe_retraining(None, champion="1")["average_precision_after"] is None
    True
    """
    gate = verdict or GateVerdict(promote=False, reasons=(), num_rows=0, num_frauds=0)
    return {
        "triggered": verdict is not None,
        "promoted": gate.promote,
        "version": challenger if gate.promote else champion,
        "challenger": challenger,
        "average_precision_before": gate.champion_average_precision,
        "average_precision_after": gate.challenger_average_precision,
        "difference": gate.difference,
        "difference_interval": gate.interval,
        "brier_score_before": gate.champion_brier_score,
        "brier_score_after": gate.challenger_brier_score,
        "rows": gate.num_rows,
        "frauds": gate.num_frauds,
        "reasons": list(gate.reasons),
    }
