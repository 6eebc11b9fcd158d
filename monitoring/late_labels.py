"""Predictions meet their late outcomes and become the model's realised performance.

Frauds are reported early and innocence is only known once the label delay has passed, so scores of
recent transactions beside the labels known so far would show a world full of fraud. Only matured
predictions count: older than the label delay, with a label that had arrived by ``now``. What is
still immature is always part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from training.bootstrap import draw_customers, find_interval, resample_ranks
from training.encoding import Booleans


@dataclass(frozen=True)
class Performance:
    """How well the champion's answers held up, as far as the truth is known.

    Attributes:
        is_degraded: Average precision fell by more than the allowed share, and its interval leaves
            the reference's value out.
        reason: One line for a person.
        num_predictions: Rows asked about, each transaction once.
        num_matured: Rows old enough for their truth to be known.
        num_labelled: Matured rows whose label arrived.
        num_frauds: Frauds among those.
        immature_share: Share of rows too young to be judged.
        unlabelled_share: Share of matured rows whose label never came.
        average_precision: Over labelled rows; ``None`` with too few frauds, as the rest.
        average_precision_interval: 95 % bootstrap interval over customers.
        roc_auc: Over labelled rows.
        roc_auc_interval: As above.
        expected_average_precision: What the champion had on its own test period.
    """

    is_degraded: bool
    reason: str
    num_predictions: int
    num_matured: int
    num_labelled: int
    num_frauds: int
    immature_share: float
    unlabelled_share: float
    average_precision: float | None = None
    average_precision_interval: list[float] | None = None
    roc_auc: float | None = None
    roc_auc_interval: list[float] | None = None
    expected_average_precision: float | None = None


def join_outcomes(
    predictions: pd.DataFrame, *, labels: pd.DataFrame, now: pd.Timestamp, label_delay_days: int
) -> pd.DataFrame:
    """Join each predicted transaction with its outcome as it was known at ``now``.

    Args:
        predictions: ``transaction_id``, ``event_time`` (UTC), in order of ``prediction_time``; a
            transaction answered twice counts once, with its first answer.
        labels: ``transaction_id``, ``is_fraud``, ``label_time`` (UTC); later labels are unknown.
        now: As of when, UTC.
        label_delay_days: Days after which a transaction without a report counts as legitimate.

    Returns:
        One row per transaction in the order of ``predictions``, its columns plus ``is_matured``
        and ``is_fraud`` (missing where there is no label by ``now``).
    """
    arrived = labels[labels["label_time"] <= now].set_index("transaction_id")["is_fraud"]
    outcomes = predictions.drop_duplicates("transaction_id")
    return outcomes.assign(
        is_fraud=outcomes["transaction_id"].map(arrived.astype(object)),
        is_matured=outcomes["event_time"] <= now - pd.Timedelta(days=label_delay_days),
    )


def measure_performance(
    outcomes: pd.DataFrame,
    *,
    expected_average_precision: float,
    max_drop: float,
    min_frauds: int,
    num_resamples: int,
    seed: int,
) -> Performance:
    """Measure what the champion's answers were worth on matured labels.

    Args:
        outcomes: From ``join_outcomes``, with ``customer_id``.
        expected_average_precision: The champion's, on its own test period.
        max_drop: Share of it that may be lost before the champion counts as degraded, in [0, 1].
        min_frauds: Fewest matured frauds that give a number.
        num_resamples: Bootstrap resamples.
        seed: For the bootstrap.

    Returns:
        Numbers over matured, labelled rows only, or the reason why there are none yet.
    """
    matured = outcomes[outcomes["is_matured"]]
    labelled = matured[matured["is_fraud"].notna()]
    is_fraud = labelled["is_fraud"].to_numpy(dtype=bool)
    unknown = _count(outcomes, matured, is_fraud, min_frauds)
    if is_fraud.sum() < min_frauds or is_fraud.all():
        return unknown
    resampled = resample_ranks(
        is_fraud,
        labelled["score"].to_numpy(np.float64),
        bootstrap=draw_customers(labelled["customer_id"], num_resamples=num_resamples, seed=seed),
    )
    realised = float(resampled["average_precision"][0])
    low, high = find_interval(resampled["average_precision"])
    least = expected_average_precision * (1 - max_drop)
    return replace(
        unknown,
        is_degraded=realised < least and high < expected_average_precision,
        reason=f"realised average precision {realised:.3f} [{low:.3f}, {high:.3f}] "
        f"over {is_fraud.sum()} matured frauds; {expected_average_precision:.3f} was expected",
        average_precision=realised,
        average_precision_interval=[low, high],
        roc_auc=float(resampled["roc_auc"][0]),
        roc_auc_interval=find_interval(resampled["roc_auc"]),
        expected_average_precision=expected_average_precision,
    )


def _count(
    outcomes: pd.DataFrame, matured: pd.DataFrame, is_fraud: Booleans, min_frauds: int
) -> Performance:
    """Count what is known so far, and call the rest unknown."""
    immature_share = 1 - len(matured) / max(len(outcomes), 1)
    return Performance(
        is_degraded=False,
        reason=f"performance unknown: {is_fraud.sum()} matured frauds of at least {min_frauds}, "
        f"{immature_share:.0%} of predictions are immature",
        num_predictions=len(outcomes),
        num_matured=len(matured),
        num_labelled=is_fraud.size,
        num_frauds=int(is_fraud.sum()),
        immature_share=immature_share,
        unlabelled_share=1 - is_fraud.size / max(len(matured), 1),
    )
