"""Amounts and truths become the one rule that needs no model: from this amount on, do that.

It answers when nothing else can, and its score is a probability all the same: the share of frauds
that was seen above the threshold, or below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.encoding import Booleans, Floats, Integers
from training.operating_point import Decisions, Prices, measure_costs


@dataclass(frozen=True)
class AmountRule:
    """What is decided from which amount on.

    Attributes:
        threshold: Smallest amount that counts as large, account currency.
        decision: What large amounts get; all others are approved.
        share_below: Share of frauds among smaller amounts, as observed.
        share_above: Share of frauds among the large ones.
    """

    threshold: float
    decision: str
    share_below: float
    share_above: float

    def scores(self, amounts: Floats) -> Floats:
        """Return the share of frauds among payments of that size. Same shape as ``amounts``.

        >>> rule = AmountRule(200.0, "review", share_below=0.01, share_above=0.1)
        >>> rule.scores(np.array([199.0, 200.0])).tolist()
        [0.01, 0.1]
        """
        return np.where(amounts >= self.threshold, self.share_above, self.share_below)

    def decide(self, amounts: Floats) -> Decisions:
        """Say ``approve``, ``review`` or ``decline`` for each payment.

        >>> rule = AmountRule(200.0, "review", share_below=0.01, share_above=0.1)
        >>> rule.decide(np.array([199.0, 200.0])).tolist()
        ['approve', 'review']
        """
        return np.where(amounts >= self.threshold, self.decision, "approve")


def choose_amount_rule(
    amounts: Floats,
    *,
    is_fraud: Booleans,
    days: Integers,
    prices: Prices,
    daily_review_capacity: int,
) -> AmountRule:
    """Find the cheapest amount from which to review, or to decline; the search is exact.

    Args:
        amounts: Account currency. Shape ``(rows,)``, at least one.
        is_fraud: The truth.
        days: A number per calendar day, equal for payments of the same day.
        prices: What outcomes cost (see ``training.operating_point``).
        daily_review_capacity: Reviews possible on each of the days.

    Returns:
        The rule; of equally cheap ones the largest threshold, and reviews before declines. Where
        approving everything is cheaper than any, the cheapest threshold with ``approve``.
    """
    order = np.argsort(-amounts, kind="stable")
    ranked = amounts[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # last of equal amounts
    approve, *others = (
        measure_costs(
            np.full(len(order), decision),
            is_fraud=is_fraud[order],
            amounts=ranked,
            prices=prices,
        )
        for decision in ("approve", "review", "decline")
    )
    extra = np.stack([(costs - approve).cumsum()[ends] for costs in others])  # (decisions, ends)
    of_the_day = pd.Series(days[order]).groupby(days[order]).cumcount().to_numpy() + 1
    extra[0, np.maximum.accumulate(of_the_day)[ends] > daily_review_capacity] = np.inf
    chosen = int(np.argmin(extra.min(axis=0)))
    decision = ("review", "decline")[int(np.argmin(extra[:, chosen]))]
    is_large = amounts >= ranked[ends[chosen]]
    return AmountRule(
        threshold=float(ranked[ends[chosen]]),
        decision=decision if extra[:, chosen].min() < 0 else "approve",
        share_below=_share(is_fraud[~is_large]),
        share_above=_share(is_fraud[is_large]),
    )


def _share(is_fraud: Booleans) -> float:
    """Return the share of frauds, 0.0 of none."""
    return float(is_fraud.mean()) if len(is_fraud) else 0.0
