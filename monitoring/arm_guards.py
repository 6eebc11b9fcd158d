"""What two arms answered becomes findings: in order, a breach, or too little to tell.

Pure. A ratio is a breach only if it is beyond its limit by more than chance explains, so that a
small canary is not taken back for a handful of rows; a stage goes on only once there are rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from training.bootstrap import draw_customers
from training.encoding import Booleans, Floats

NOTICEABLE_MS = 0.5
"""A decision that takes less than this longer is not slower for anybody."""
MIN_ROWS = 100
"""Of each arm: fewer say little about a median or a share of some per cent."""

SLICES = ("merchant_category", "card_type")
"""Columns of a transaction whose values a model may serve worse than the rest."""

NUM_ERRORS = 3.0
"""Standard errors that chance is allowed: 1 in 370 per guard and look, since there are many."""
DESIGN_EFFECT = 4.0
"""Times the variance of independent rows: what is declined comes in bursts of one customer."""


@dataclass(frozen=True)
class ArmFinding:
    """What one guard found.

    Attributes:
        guard: Its name.
        verdict: ``breach`` takes the challenger back; ``wait`` keeps it where it is.
        reason: One line for a person: the verdict, the figures, the limit.
        evidence: The numbers, as JSON.
    """

    guard: str
    verdict: Literal["ok", "breach", "wait"]
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


class _Limit(NamedTuple):
    """How far two means may lie apart: beyond both of the first, or below the last, is a breach."""

    ratio: float
    change: float
    least_ratio: float


def compare_answers(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    *,
    slices: tuple[str, ...],
    max_latency_ratio: float | None,
    max_decline_ratio: float,
    max_decline_change: float,
    min_decline_ratio: float,
) -> tuple[ArmFinding, ...]:
    """Compare what two arms said to comparable rows, before any outcome is known.

    Args:
        champion: ``score``, ``decision``, ``latency_ms`` and the columns of ``slices``; for a
            shadow the same transactions, for a canary those of the other customers.
        challenger: The same columns.
        slices: Columns within whose values declines are compared too, where both have rows.
        max_latency_ratio: Of the median times, challenger to champion; ``None`` does not compare
            them, as for a shadow, which scores beside the answer and keeps nobody waiting.
        max_decline_ratio: Of the shares declined and of the mean scores, either way.
        max_decline_change: Of the same, in [0, 1]; a breach is beyond both. A challenger that
            learnt of more fraud declines several times as much, and still very little.
        min_decline_ratio: Of the same; a breach is below it, however little that is: a challenger
            that hardly declines any more, or gives hardly a score, has lost its inputs.

    Returns:
        Findings on rows or else on latency, scores, declines and each slice that is breached.
    """
    counts = {"champion_rows": len(champion), "challenger_rows": len(challenger)}
    if min(counts.values()) < MIN_ROWS:
        reason = (
            f"too few rows: {len(challenger)} of the challenger, {len(champion)} of the champion; "
            f"{MIN_ROWS} of each are needed"
        )
        return (ArmFinding("rows", "wait", reason, counts),)
    arms = (champion, challenger)
    limit = _Limit(max_decline_ratio, max_decline_change, min_decline_ratio)
    scores = [arm["score"].to_numpy(np.float64) for arm in arms]
    declines = [(arm["decision"] == "decline").to_numpy() for arm in arms]
    findings = [
        _compare_means("scores", "the mean score", *scores, limit=limit),
        _compare_means("declines", "the share declined", *declines, limit=limit),
    ]
    if max_latency_ratio is not None:
        times = (arm["latency_ms"] for arm in arms)
        findings.insert(0, _compare_latency(*times, limit=max_latency_ratio))
    for name in slices:
        for value in sorted(set(champion[name].dropna()) & set(challenger[name].dropna())):
            inside = [d[(a[name] == value).to_numpy()] for d, a in zip(declines, arms, strict=True)]
            if min(map(len, inside)) < MIN_ROWS:
                continue
            found = _compare_means(
                f"declines of {name}={value}",
                f"the share declined where {name} is {value}",
                *inside,
                limit=limit,
            )
            findings += [found] if found.verdict == "breach" else []
    return tuple(findings)


def _name_verdict(is_breach: bool) -> str:
    return "breach" if is_breach else "in order"


def _compare_latency(
    champion: pd.Series[float], challenger: pd.Series[float], *, limit: float
) -> ArmFinding:
    medians = float(champion.median()), float(challenger.median())
    is_slow = medians[1] > max(limit * medians[0], medians[0] + NOTICEABLE_MS)
    return ArmFinding(
        "latency",
        "breach" if is_slow else "ok",
        f"{_name_verdict(is_slow)}: a decision takes {medians[1]:.2f} ms, the champion's "
        f"{medians[0]:.2f} ms; limit {limit:g} times as long",
        {"champion_ms": medians[0], "challenger_ms": medians[1], "limit": limit},
    )


def _compare_means(
    guard: str,
    what: str,
    champion: Floats | Booleans,
    challenger: Floats | Booleans,
    *,
    limit: _Limit,
) -> ArmFinding:
    """Compare two means by their ratio, half an event added to each so that none is zero.

    Source: two-sample z-test with the pooled variance, times a design effect; on the rows of a
        shadow, which are the same, it allows chance more than its due.
    """
    values = np.concatenate([champion, challenger]).astype(np.float64)
    sizes = 1 / champion.size + 1 / challenger.size
    error = float(np.sqrt(DESIGN_EFFECT * values.var() * sizes))
    change = float(challenger.mean() - champion.mean())
    first, second = ((arm.sum() + 0.5) / arm.size for arm in (champion, challenger))
    ratio = float(second / first)
    is_apart = max(ratio, 1 / ratio) > limit.ratio and abs(change) > limit.change
    is_beyond = abs(change) > NUM_ERRORS * error and (is_apart or ratio < limit.least_ratio)
    return ArmFinding(
        guard,
        "breach" if is_beyond else "ok",
        f"{_name_verdict(is_beyond)}: {what} is {challenger.mean():.4f}, the champion's "
        f"{champion.mean():.4f}; limit: {limit.ratio:g} times either way and by more than "
        f"{limit.change:g}; or below {limit.least_ratio:g} times; and beyond chance",
        {
            "champion": float(champion.mean()),
            "challenger": float(challenger.mean()),
            "ratio": ratio,
            "standard_error": error,
            "limit": limit.ratio,
            "change_limit": limit.change,
            "least_ratio": limit.least_ratio,
        },
    )


def compare_costs(
    costs: pd.DataFrame, *, max_increase: float, confidence: float, min_frauds: int, seed: int
) -> ArmFinding:
    """Compare what two models' decisions cost on the same transactions, whose outcome is known.

    Args:
        costs: ``customer_id``, ``is_fraud``, ``champion_cost``, ``challenger_cost`` (account
            currency) and ``weight`` (the inverse of the chance of seeing the outcome).
        max_increase: As a share of the champion's cost.
        confidence: Mass of the central interval of the difference, whose lower end must be above
            0 for a breach.
        min_frauds: Fewest frauds that decide anything.
        seed: For the bootstrap.

    Returns:
        A breach, or ``ok``, also where too little has matured: outcomes come days later than a
        canary can wait, and the watch that follows sees them.
    """
    num_frauds = int(costs["is_fraud"].sum())
    if num_frauds < min_frauds:
        reason = f"cost not judged yet: {num_frauds} frauds are known, {min_frauds} are needed"
        return ArmFinding("cost", "ok", reason, {"frauds": num_frauds})
    bootstrap = draw_customers(costs["customer_id"], num_resamples=1000, seed=seed)
    num_customers = bootstrap.multiplicity.shape[1]
    champion, challenger = (
        bootstrap.multiplicity
        @ np.bincount(
            bootstrap.customer_codes,
            weights=(costs[name] * costs["weight"]).to_numpy(np.float64),
            minlength=num_customers,
        )
        for name in ("champion_cost", "challenger_cost")
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile((challenger - champion)[1:], [tail, 1 - tail])
    is_breach = bool(challenger[0] > champion[0] * (1 + max_increase) and low > 0)
    thousand = 1000.0 / float(costs["weight"].sum())
    return ArmFinding(
        "cost",
        "breach" if is_breach else "ok",
        f"{_name_verdict(is_breach)}: 1,000 transactions cost {challenger[0] * thousand:.2f} "
        f"instead of {champion[0] * thousand:.2f}, the difference's {confidence:.0%} interval "
        f"[{low * thousand:+.2f}, {high * thousand:+.2f}] over {num_frauds} known frauds; "
        f"limit {max_increase:.0%} more, beyond chance",
        {
            "champion_cost_per_1000": float(champion[0] * thousand),
            "challenger_cost_per_1000": float(challenger[0] * thousand),
            "difference_interval": [float(low * thousand), float(high * thousand)],
            "rows": len(costs),
            "frauds": num_frauds,
            "limit": max_increase,
        },
    )
