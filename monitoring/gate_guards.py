"""What else a challenger that ranks better must not do: cost more, or fail a part of the customers.

Pure, on the rows that the gate judged; latency is judged where it can be measured, in the canary.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from monitoring.arm_guards import compare_costs
from monitoring.retrain import GateLimits, GateVerdict
from training.bootstrap import draw_customers, resample_ranks


def guard_verdict(
    verdict: GateVerdict,
    rows: pd.DataFrame,
    *,
    slices: tuple[str, ...],
    limits: GateLimits,
    max_cost_increase: float,
    seed: int,
) -> GateVerdict:
    """Turn down what the gate let through if it costs clearly more or loses a slice.

    Args:
        verdict: The gate's; one that does not promote is returned as it is.
        rows: What it judged: ``customer_id``, ``is_fraud``, ``champion_score``,
            ``challenger_score``, ``champion_cost``, ``challenger_cost`` (account currency, of each
            model's own decisions), ``weight`` (for how many transactions it stands) and the columns
            of ``slices``.
        slices: Columns within whose values average precision must not clearly fall.
        limits: The gate's.
        max_cost_increase: As a share of the champion's cost.
        seed: For the bootstrap.

    Returns:
        The verdict with what the guards found among its reasons.
    """
    if not verdict.promote:
        return verdict
    cost = compare_costs(
        rows,
        max_increase=max_cost_increase,
        confidence=limits.confidence,
        min_frauds=limits.min_frauds,
        seed=seed,
    )
    worse = _find_worse_slices(rows, slices=slices, limits=limits, seed=seed)
    return replace(
        verdict,
        promote=cost.verdict != "breach" and not worse,
        reasons=(*verdict.reasons, cost.reason, *(worse or ("no slice is ranked worse",))),
    )


def _find_worse_slices(
    rows: pd.DataFrame, *, slices: tuple[str, ...], limits: GateLimits, seed: int
) -> tuple[str, ...]:
    """Name the slices whose ranking clearly falls; one with few frauds tells nothing.

    Source: Bonferroni's correction, the tail divided among the slices that are judged, so that many
        slices turn a challenger down by chance no more often than one.
    """
    judged = {
        f"where {name} is {value}": inside
        for name in slices
        for value, inside in rows.groupby(name, observed=True)
        if inside["is_fraud"].sum() >= limits.min_frauds and not inside["is_fraud"].all()
    }
    tail = (1 - limits.confidence) / 2 / max(len(judged), 1)
    worse = []
    for where, inside in judged.items():
        is_fraud = inside["is_fraud"].to_numpy(dtype=bool)
        draws = draw_customers(inside["customer_id"], num_resamples=limits.num_resamples, seed=seed)
        champion, challenger = (
            resample_ranks(
                is_fraud,
                inside[scores].to_numpy(np.float64),
                bootstrap=draws,
                weights=inside["weight"].to_numpy(np.float64),
            )["average_precision"]
            for scores in ("champion_score", "challenger_score")
        )
        if np.nanquantile((challenger - champion)[1:], 1 - tail) < 0:
            worse.append(
                f"ranks worse {where}: average precision {champion[0]:.3f} becomes "
                f"{challenger[0]:.3f}, over {is_fraud.sum()} frauds; limit: beyond chance"
            )
    return tuple(worse)
