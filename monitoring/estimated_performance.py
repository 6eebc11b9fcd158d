"""Calibrated scores alone become an estimate of the performance that labels will confirm, or not.

If a score of 0.2 means a fraud in five, the frauds among today's answers are known in number before
any label arrives, and so is how well the scores rank them. That holds while the world only moves
among cases the model knows (covariate shift). When the same case becomes fraud more or less often
(concept drift), the scores mean something else and the estimate does not notice: so once labels
have matured, the gap between what the scores announced and what came about is a signal of its own.

Declined payments take part in the estimate, since their scores are known.

Source: confidence-based performance estimation (CBPE), as published in NannyML's documentation,
"How it works: performance estimation"; the formulas only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from monitoring.announced_frauds import draw_average_precisions, measure_average_precisions
from monitoring.late_labels import NORMAL_95
from monitoring.prediction_limits import find_prediction_limit
from monitoring.reference_windows import MIN_VALUES, WindowPlan
from training.bootstrap import CustomerBootstrap, draw_customers, find_interval
from training.encoding import Floats
from training.metrics import RankCounts, summarise_ranks
from training.operating_point import Prices

VALIDITY = "valid under covariate shift only"


@dataclass(frozen=True)
class Estimate:
    """What the scores say of themselves.

    Attributes:
        is_low: Average precision is estimated below what the reference's own windows vary by, and
            by more than allowed.
        reason: One line for a person.
        num_rows: Answers it is made of.
        average_precision: Estimated.
        average_precision_interval: 95 %, of customers and of chance: where the realised should lie.
        cost_per_1000: Of the decisions taken, account currency; ``None`` as the rest if unknown.
        cost_per_1000_interval: As above.
        fraud_share: Frauds announced, as a share of rows.
        expected_average_precision: The same estimate on the champion's reference.
        lowest_average_precision: The least that an unchanged window would give.
        validity: What it takes for the estimate to mean anything.
    """

    is_low: bool
    reason: str
    num_rows: int
    average_precision: float | None = None
    average_precision_interval: list[float] | None = None
    cost_per_1000: float | None = None
    cost_per_1000_interval: list[float] | None = None
    fraud_share: float | None = None
    expected_average_precision: float | None = None
    lowest_average_precision: float | None = None
    validity: str = VALIDITY

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Gap:
    """What came about, less what the scores had announced, on the same matured rows.

    Attributes:
        is_concept_drift: Average precision fell short by more than allowed and more than chance.
        reason: One line for a person.
        num_rows: Matured rows with an outcome.
        average_precision: Realised less estimated; ``None`` with too few frauds.
        average_precision_interval: 95 % bootstrap interval over customers.
    """

    is_concept_drift: bool
    reason: str
    num_rows: int
    average_precision: float | None = None
    average_precision_interval: list[float] | None = None

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def estimate_average_precision(scores: Floats) -> float:
    """Estimate average precision from probabilities alone; NaN without any expectation of fraud.

    At each threshold the expected precision and recall, as if each row were a fraud to the share
    its score says.

    >>> estimate_average_precision(np.array([1.0, 0.0]))
    1.0
    >>> estimate_average_precision(np.full(4, 0.5))
    0.5
    """
    values, positions = np.unique(-scores, return_inverse=True)
    frauds = np.bincount(positions, weights=scores, minlength=values.size).astype(np.float64)
    rows = np.bincount(positions, minlength=values.size).astype(np.float64)
    counts = RankCounts(frauds[:, None], (rows - frauds)[:, None])
    return float(summarise_ranks(counts)["average_precision"][0])


def estimate_performance(
    answers: pd.DataFrame,
    *,
    reference_scores: Floats,
    plan: WindowPlan,
    prices: Prices,
    max_drop: float,
    min_frauds: int,
    false_alarm_rate: float,
    num_resamples: int,
    seed: int,
) -> Estimate:
    """Estimate what answers are worth before their labels arrive.

    Args:
        answers: ``customer_id``, ``score`` (a calibrated probability), ``decision``, ``amount``.
        reference_scores: The champion's, on its reference.
        plan: Windows of the reference as long as that of the answers.
        prices: What outcomes cost.
        max_drop: Share of the reference's estimate that may be lost, in [0, 1].
        min_frauds: Fewest frauds to be expected among the answers for a number.
        false_alarm_rate: Share of unchanged windows that may be called low.
        num_resamples: For the intervals.
        seed: As above.

    Returns:
        The estimate, or the reason why there is none.
    """
    scores = answers["score"].to_numpy(dtype=np.float64)
    if scores.sum() < min_frauds:
        reason = f"estimate unknown: {scores.sum():.0f} frauds expected of at least {min_frauds}"
        return Estimate(False, reason, num_rows=len(answers))
    bootstrap = draw_customers(answers["customer_id"], num_resamples=num_resamples, seed=seed)
    drawn = draw_average_precisions(scores, np.ones(scores.size), bootstrap=bootstrap, seed=seed)
    costs = _resample_costs(answers, prices=prices, bootstrap=bootstrap, seed=seed)
    estimated = estimate_average_precision(scores)
    expected = estimate_average_precision(reference_scores)
    lowest = find_lowest_estimate(reference_scores, plan=plan, false_alarm_rate=false_alarm_rate)
    is_low = estimated < expected * (1 - max_drop) and lowest is not None and estimated < lowest
    low, high = interval = find_interval(drawn)
    return Estimate(
        is_low=is_low,
        reason=f"estimated average precision {estimated:.3f} [{low:.3f}, {high:.3f}], {VALIDITY}; "
        f"{expected:.3f} on the reference",
        num_rows=len(answers),
        average_precision=estimated,
        average_precision_interval=interval,
        cost_per_1000=float(costs[0]),
        cost_per_1000_interval=find_interval(costs),
        fraud_share=float(scores.mean()),
        expected_average_precision=expected,
        lowest_average_precision=lowest,
    )


def find_lowest_estimate(
    reference_scores: Floats, *, plan: WindowPlan, false_alarm_rate: float
) -> float | None:
    """Find the estimate that an unchanged window rarely falls below; ``None`` from few windows."""
    estimates = [
        estimate_average_precision(reference_scores[window.inside])
        for window in plan.windows
        if window.inside.sum() >= MIN_VALUES
    ]
    limit = find_prediction_limit(
        -np.array(estimates),
        num_independent=plan.num_independent,
        exceeded_share=false_alarm_rate,
    )
    return None if limit is None else -limit


def measure_gap(
    known: pd.DataFrame,
    *,
    max_drop: float,
    min_frauds: int,
    false_alarm_rate: float,
    num_resamples: int,
    seed: int,
) -> Gap:
    """Hold what came about against what the scores had announced for the same rows.

    Args:
        known: Matured rows from ``monitoring.late_labels.select_known``, with ``customer_id``; only
            those with an outcome take part, each with its weight.
        max_drop: Share of the estimate that may be missing, in [0, 1].
        min_frauds: Fewest frauds that say anything.
        false_alarm_rate: How often chance alone may make a gap a signal.
        num_resamples: Bootstrap resamples of customers; each draws the announced frauds anew.
        seed: For both.

    Returns:
        The gap and whether it is a signal. That the announced frauds are drawn makes its interval
        wider than that of the realised number alone.
    """
    seen = known[known["is_fraud"].notna()]
    is_fraud = seen["is_fraud"].to_numpy(dtype=bool)
    if is_fraud.sum() < min_frauds or is_fraud.all():
        reason = f"gap unknown: {is_fraud.sum()} matured frauds of at least {min_frauds}"
        return Gap(False, reason, num_rows=len(seen))
    scores, weights = (seen[name].to_numpy(dtype=np.float64) for name in ("score", "weight"))
    bootstrap = draw_customers(seen["customer_id"], num_resamples=num_resamples, seed=seed)
    announced = draw_average_precisions(scores, weights, bootstrap=bootstrap, seed=seed)
    realised = measure_average_precisions(is_fraud, scores, weights, bootstrap=bootstrap)
    usual = float(np.nanmean(announced))
    gap = float(realised[0]) - usual
    low, high = find_interval(realised - announced)
    chance = float(norm.ppf(1 - false_alarm_rate)) * (high - low) / (2.0 * NORMAL_95)
    return Gap(
        is_concept_drift=gap < -max_drop * usual and gap < -chance,
        reason=f"average precision {realised[0]:.3f} where the scores announced {usual:.3f}; "
        f"gap {gap:+.3f} [{low:+.3f}, {high:+.3f}]",
        num_rows=len(seen),
        average_precision=gap,
        average_precision_interval=[low, high],
    )


def _resample_costs(
    answers: pd.DataFrame, *, prices: Prices, bootstrap: CustomerBootstrap, seed: int
) -> Floats:
    """Estimate the cost of 1,000 answers as they were decided; the plain number first.

    What chance adds is normal: a sum of many stakes, each lost with its probability.
    """
    scores, amounts = (answers[name].to_numpy(dtype=np.float64) for name in ("score", "amount"))
    is_approved, is_declined = (
        (answers["decision"] == name).to_numpy() for name in ("approve", "decline")
    )
    fees = np.where(is_approved | is_declined, 0.0, prices.review_fee)
    stakes = np.where(is_approved, amounts, 0.0) - is_declined * prices.false_decline_goodwill
    certain = fees + is_declined * prices.false_decline_goodwill
    codes, multiplicity = bootstrap.customer_codes, bootstrap.multiplicity
    expected, variances = (
        np.bincount(codes, weights=values, minlength=multiplicity.shape[1])
        for values in (certain + scores * stakes, scores * (1 - scores) * stakes**2)
    )
    sizes = multiplicity @ np.bincount(codes, minlength=multiplicity.shape[1])
    chance = np.random.default_rng(seed).normal(size=len(multiplicity))
    chance[0] = 0.0
    spread = np.sqrt(np.square(multiplicity) @ variances)
    return np.asarray(1000.0 * (multiplicity @ expected + chance * spread) / sizes)
