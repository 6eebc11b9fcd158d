"""Declined payments have no outcome; one that was let through stands for those that were not.

Trained on labels alone, a model would learn that what was declined is legitimate, since nobody ever
reports it. With the chance at which each outcome could be seen, declined rows are left out and the
others count 1 / chance times: all payments are represented, those that were declined included.

Source: Horvitz and Thompson, "A Generalization of Sampling Without Replacement From a Finite
Universe", 1952 (weights by inverse probability).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from training.encoding import Floats, Integers


def look_up_shares(
    transaction_ids: pd.Series[str], outcome_shares: pd.Series[float] | None
) -> Floats:
    """Return the chance with which each transaction's outcome is seen, in [0, 1].

    Args:
        transaction_ids: Of any rows.
        outcome_shares: By transaction id, each once. What it lacks was never answered by a model,
            so nothing was kept from it: 1.

    >>> known = pd.Series([0.0, 0.5], index=["declined", "let through"])
    >>> look_up_shares(pd.Series(["let through", "declined", "older"]), known).tolist()
    [0.5, 0.0, 1.0]
    """
    if outcome_shares is None:
        return np.ones(len(transaction_ids))
    return np.asarray(transaction_ids.map(outcome_shares).fillna(1.0), dtype=np.float64)


def repeat_by_weight(outcome_shares: Floats) -> Integers:
    """Return each row's position as often as it stands for rows: 1 / share, rounded.

    A row whose outcome is never seen stands for itself: it has features, and no truth.

    >>> repeat_by_weight(np.array([1.0, 0.5, 0.0])).tolist()
    [0, 1, 1, 2]
    """
    weights = np.ones(outcome_shares.size)
    np.divide(1.0, outcome_shares, out=weights, where=outcome_shares > 0)
    return np.repeat(np.arange(outcome_shares.size), np.rint(weights).astype(np.int64))
