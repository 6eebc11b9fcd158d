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
from monitoring.arm_guards import SLICES
from monitoring.arm_judging import price_decisions
from monitoring.gate_guards import guard_verdict
from monitoring.late_labels import explain_unseen
from monitoring.outcome_shares import read_outcome_shares
from monitoring.retrain import GateVerdict, compare_scores, read_gate_limits
from training.artefact import Artefact, load_artefact
from training.fraud_prices import read_prices
from training.promotion import set_alias
from training.registry import CHALLENGER, CHAMPION, get_champion, get_model
from training.seen_outcomes import look_up_shares

Train = Callable[..., dict[str, Any]]
"""``train(config, now=, only=, params=, outcome_shares=)`` registers a challenger, as ``run_train``
does."""


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
    train(
        config,
        now=now,
        only=champion.spec.kind,
        params=dict(champion.spec.parameters),
        outcome_shares=read_outcome_shares(config.runs),
    )
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

    What was declined has no outcome and is left out; what was let through by chance counts for it.
    Where nothing was, the champion's own top rows are missing and it would look worse than it is.

    Args:
        config: The fraud problem's configuration.
        champion: What serves.
        challenger: What might.
        now: As of when, UTC.

    Returns:
        The verdict; an undecided one if either model has seen those days, or if payments were
        declined and none let through.
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
    answered = _load_matured_rows(config, window)
    rows = answered[answered["weight"] > 0].astype({"is_fraud": bool}).reset_index(drop=True)
    unseen = explain_unseen(
        num_declined=len(answered) - len(rows), num_explored=int((rows["weight"] > 1).sum())
    )
    if unseen is not None:
        reason = f"not to be compared fairly: {unseen}"
        return GateVerdict(False, (reason,), len(rows), int(rows["is_fraud"].sum()))
    # Here, since it takes Feast seconds to load, and few of the loop's ticks judge.
    from features.store import open_feature_store, read_training_features

    with show_progress(f"Comparing challenger and champion on {len(rows):,} transactions"):
        features = read_training_features(
            open_feature_store(config.runs), rows.drop(columns=["is_fraud", "label_time", "weight"])
        )
        scores = {model.version: model.predict(features) for model in (champion, challenger)}
        costs = {
            model.version: price_decisions(
                model, rows, scores[model.version], prices=read_prices(config)
            )
            for model in (champion, challenger)
        }
        limits = read_gate_limits(config)
        verdict = compare_scores(
            rows["is_fraud"].to_numpy(dtype=bool),
            champion_scores=scores[champion.version],
            challenger_scores=scores[challenger.version],
            customer_id=rows["customer_id"],
            limits=limits,
            seed=config.seed,
            weights=rows["weight"].to_numpy(np.float64),
        )
        judged = rows.assign(
            champion_score=scores[champion.version],
            challenger_score=scores[challenger.version],
            champion_cost=costs[champion.version],
            challenger_cost=costs[challenger.version],
        )
        return guard_verdict(
            verdict,
            judged,
            slices=tuple(name for name in SLICES if name in rows),
            limits=limits,
            max_cost_increase=config.rollout.max_cost_increase,
            seed=config.seed,
        )


def _load_matured_rows(config: FraudConfig, window: Slice) -> pd.DataFrame:
    """Load a slice's transactions whose outcome was seen, and those declined, which have none.

    Returns:
        The contract's columns, ``is_fraud`` and ``label_time`` (of what was declined nothing to go
        by) and ``weight``: for how many transactions each stands, 0 where declined.
    """
    labels = load_labels(config.runs)[["transaction_id", "is_fraud", "label_time"]]
    rows = load_transactions(config.runs).merge(
        labels, how="left", on="transaction_id", validate="1:1"
    )
    shares = look_up_shares(rows["transaction_id"], read_outcome_shares(config.runs))
    is_visible = shares > 0
    # That there will be no outcome is known at once.
    known_time = rows["label_time"].where(is_visible, rows["event_time"])
    weights = np.divide(1.0, shares, out=np.zeros(shares.size), where=is_visible)
    is_inside = window.select(rows["event_time"], label_time=known_time)
    return rows.assign(weight=weights)[is_inside]


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
