"""Findings, drift and realised performance become a decision; two models' scores become a verdict.

Pure: nothing is read, trained or promoted here. A decision and a verdict always carry their reasons
in words a person on call can act on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from configs.schema import FraudConfig
from monitoring.retraining_policy import Alarm, Trigger
from training.bootstrap import draw_customers, resample_ranks
from training.encoding import Booleans, Floats
from training.metrics import brier_score


@dataclass(frozen=True)
class RetrainDecision:
    """What to do, and why: ``blocked`` means the feed must be repaired first."""

    action: Literal["retrain", "keep", "blocked"]
    reasons: tuple[str, ...]


def decide(blocking: Sequence[str], *, alarms: Mapping[Trigger, Alarm]) -> RetrainDecision:
    """Decide at one look whether to train a challenger; the loop is more patient.

    Args:
        blocking: What is wrong with the feed, from the data-quality gate; it ends the matter.
        alarms: What each trigger says.

    Returns:
        ``blocked`` if the feed is broken, ``retrain`` if a trigger went off, else ``keep``; every
        reason that counted, or everything that was found quiet.
    """
    if blocking:
        return RetrainDecision("blocked", ("not retraining on a broken feed", *blocking))
    reasons = tuple(alarm.reason for alarm in alarms.values() if alarm.is_on)
    if reasons:
        return RetrainDecision("retrain", reasons)
    return RetrainDecision("keep", tuple(alarm.reason for alarm in alarms.values()))


@dataclass(frozen=True)
class GateLimits:
    """What a challenger must show.

    Attributes:
        confidence: Mass of the central interval of the difference.
        margin: How far below 0 that interval's lower end may lie, in average precision, where the
            difference itself is above 0. At 0 the challenger must be shown to be better: at a
            confidence of 0.9 one that is no better passes one time in twenty. Above 0 it must be
            better as far as one sees, and not much worse as far as chance allows: a week holds too
            few frauds to show a gain of 0.02, and weeks without it add up.
        min_frauds: Fewest frauds that decide anything.
        max_brier_increase: How much worse the challenger's probabilities may be, as a share of the
            champion's Brier score: ranking better is no licence to misstate risks, since decisions
            are taken at probability thresholds.
        num_resamples: Bootstrap resamples.
    """

    confidence: float
    min_frauds: int
    max_brier_increase: float
    num_resamples: int = 1000
    margin: float = 0.0


def read_gate_limits(config: FraudConfig) -> GateLimits:
    """Take the gate's limits out of a configuration."""
    limits = config.monitoring
    return GateLimits(
        confidence=limits.gate_confidence,
        margin=limits.gate_margin,
        min_frauds=limits.min_matured_frauds,
        max_brier_increase=limits.max_brier_increase,
    )


@dataclass(frozen=True)
class GateVerdict:
    """Whether the challenger replaces the champion, with the evidence.

    Attributes:
        promote: It does.
        reasons: In words, the verdict before its figures and limit: ranking, then calibration.
        num_rows: Transactions both scored.
        num_frauds: Frauds among them.
        champion_average_precision: ``None`` where there was too little to judge, as the rest.
        challenger_average_precision: On the same rows.
        difference: Challenger less champion.
        interval: Of the difference, over the same resamples of customers.
        champion_brier_score: Lower is better.
        challenger_brier_score: Lower is better.
    """

    promote: bool
    reasons: tuple[str, ...]
    num_rows: int
    num_frauds: int
    champion_average_precision: float | None = None
    challenger_average_precision: float | None = None
    difference: float | None = None
    interval: list[float] | None = None
    champion_brier_score: float | None = None
    challenger_brier_score: float | None = None

    @property
    def is_decided(self) -> bool:
        """Whether there was enough to judge; else the same question later may be answered."""
        return self.promote or self.difference is not None


def compare_scores(
    is_fraud: Booleans,
    *,
    champion_scores: Floats,
    challenger_scores: Floats,
    customer_id: pd.Series[str],
    limits: GateLimits,
    seed: int,
    weights: Floats | None = None,
) -> GateVerdict:
    """Let a challenger through only if it ranks frauds better and its probabilities hold.

    Both models are judged on the same resamples of customers, so what makes a week easy or hard
    for both cancels out.

    Args:
        is_fraud: Matured truth of transactions neither model was trained on. Shape ``(rows,)``.
        champion_scores: Calibrated probabilities. Shape ``(rows,)``.
        challenger_scores: Calibrated probabilities. Shape ``(rows,)``.
        customer_id: Whose transaction each row is.
        limits: See ``GateLimits``.
        seed: For the bootstrap.
        weights: For how many transactions each row stands; without them, for itself.

    Returns:
        The verdict; no promotion where there are too few frauds to tell.
    """
    num_frauds = int(is_fraud.sum())
    unknown = GateVerdict(False, (), num_rows=is_fraud.size, num_frauds=num_frauds)
    if num_frauds < limits.min_frauds or is_fraud.all():
        reason = (
            f"too few frauds to compare on: {num_frauds} have matured, {limits.min_frauds} are "
            "needed"
        )
        return replace(unknown, reasons=(reason,))
    bootstrap = draw_customers(customer_id, num_resamples=limits.num_resamples, seed=seed)
    champion, challenger = (
        resample_ranks(is_fraud, scores, bootstrap=bootstrap, weights=weights)["average_precision"]
        for scores in (champion_scores, challenger_scores)
    )
    tail = (1 - limits.confidence) / 2
    low, high = np.nanquantile((challenger - champion)[1:], [tail, 1 - tail])
    briers = [
        brier_score(is_fraud, scores, weights=weights)
        for scores in (champion_scores, challenger_scores)
    ]
    gain = float(challenger[0] - champion[0])
    is_better = bool(gain > 0 and low > -limits.margin)
    is_calibrated = briers[1] <= briers[0] * (1 + limits.max_brier_increase)
    least = 0 - limits.margin
    unproven = "not shown to rank better" if gain > 0 else "does not rank better"
    ranking = (
        f"{'ranks better' if is_better else unproven}: average precision {champion[0]:.3f} "
        f"becomes {challenger[0]:.3f}, the difference's {limits.confidence:.0%} interval "
        f"[{low:+.3f}, {high:+.3f}]; it must be above 0, its interval above {least:g}"
    )
    calibration = (
        f"{'calibrated' if is_calibrated else 'miscalibrated'}: Brier score {briers[0]:.5f} "
        f"becomes {briers[1]:.5f}; limit {limits.max_brier_increase:.0%} more"
    )
    return replace(
        unknown,
        promote=is_better and is_calibrated,
        reasons=(ranking, calibration),
        champion_average_precision=float(champion[0]),
        challenger_average_precision=float(challenger[0]),
        difference=float(challenger[0] - champion[0]),
        interval=[float(low), float(high)],
        champion_brier_score=briers[0],
        challenger_brier_score=briers[1],
    )
