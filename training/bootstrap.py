"""Metrics get intervals: the percentile bootstrap over customers.

Customers are drawn with replacement, each with all its transactions, because a card's frauds come
in bursts: rows are not independent, and an interval over rows would be too narrow. Every metric is
a function of sums over customers, so a resample is one column of a (sparse) matrix product and
models are compared on the same resamples.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval);
Cameron, Gelbach and Miller, 2008 (resampling clusters).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from training.encoding import Booleans, Floats, Integers
from training.metrics import (
    NUM_CARDS_CHECKED,
    RankCounts,
    card_precision,
    find_calibration_bins,
    find_segments,
    rank_cards,
    summarise_ranks,
)

TAILS = (0.025, 0.975)
"""Ends of a 95 % interval."""


@dataclass(frozen=True)
class CustomerBootstrap:
    """Which customers were drawn how often.

    Attributes:
        customer_codes: The customer of each row. Shape ``(rows,)``.
        multiplicity: Times each customer was drawn; the first resample draws each exactly once, so
            column 0 of every result is the plain metric. Shape ``(1 + resamples, customers)``.
    """

    customer_codes: Integers
    multiplicity: Floats

    def take(self, rows: Booleans) -> CustomerBootstrap:
        """Keep the same draws for some of the rows."""
        return replace(self, customer_codes=self.customer_codes[rows])


def draw_customers(
    customer_id: pd.Series[str], *, num_resamples: int, seed: int
) -> CustomerBootstrap:
    """Draw as many customers as there are, with replacement, ``num_resamples`` times.

    >>> draw = draw_customers(pd.Series(["a", "b", "a"]), num_resamples=2, seed=0)
    >>> draw.multiplicity.shape, draw.multiplicity.sum(axis=1).tolist()
    ((3, 2), [2.0, 2.0, 2.0])
    """
    codes, customers = pd.factorize(customer_id)
    num_customers = len(customers)
    chances = np.full(num_customers, 1.0 / num_customers)
    draws = np.random.default_rng(seed).multinomial(num_customers, chances, size=num_resamples)
    multiplicity = np.vstack([np.ones((1, num_customers)), draws])
    return CustomerBootstrap(codes.astype(np.int64), multiplicity)


def resample_ranks(
    is_fraud: Booleans,
    scores: Floats,
    *,
    bootstrap: CustomerBootstrap,
    weights: Floats | None = None,
) -> dict[str, Floats]:
    """Compute ``summarise_ranks`` on every resample. Each of shape ``(1 + resamples,)``.

    ``weights`` say for how many transactions each row stands; without them, for itself.
    """
    counted = np.ones(len(scores)) if weights is None else weights
    segments = find_segments(is_fraud, scores)
    shape = (int(segments.max(initial=-1)) + 1, bootstrap.multiplicity.shape[1])
    cells = (segments, bootstrap.customer_codes)

    def count(flags: Booleans) -> Floats:
        rows = sparse.csr_array((flags * counted, cells), shape=shape)
        return np.asarray(rows @ bootstrap.multiplicity.T)

    return summarise_ranks(RankCounts(count(is_fraud), count(~is_fraud)))


def resample_probabilities(
    is_fraud: Booleans,
    scores: Floats,
    *,
    bootstrap: CustomerBootstrap,
    weights: Floats | None = None,
) -> dict[str, Floats]:
    """Compute Brier score and ECE on every resample; the bins stay those of the whole sample.

    ECE is biased upwards on few rows, and more so resampled: read its interval with that in mind.
    ``weights`` as for ``resample_ranks``.
    """
    counted = np.ones(len(scores)) if weights is None else weights
    bins = find_calibration_bins(scores)
    codes, num_customers = bootstrap.customer_codes, bootstrap.multiplicity.shape[1]
    squares = np.bincount(
        codes, weights=counted * (scores - is_fraud) ** 2, minlength=num_customers
    )
    sizes = bootstrap.multiplicity @ np.bincount(codes, weights=counted, minlength=num_customers)
    shape = (int(bins.max(initial=-1)) + 1, num_customers)
    gaps = sparse.csr_array((counted * (scores - is_fraud), (bins, codes)), shape=shape)
    gap_sums = np.asarray(gaps @ bootstrap.multiplicity.T)  # (bins, resamples)
    return {
        "brier_score": (bootstrap.multiplicity @ squares) / sizes,
        "expected_calibration_error": np.abs(gap_sums).sum(axis=0) / sizes,
    }


def resample_card_precision(
    is_fraud: Booleans,
    scores: Floats,
    *,
    event_time: pd.Series[pd.Timestamp],
    bootstrap: CustomerBootstrap,
    cards_checked: int = NUM_CARDS_CHECKED,
    weights: Floats | None = None,
) -> Floats:
    """Compute card precision on every resample; ``weights`` as for ``rank_cards``.

    Returns:
        Shape ``(1 + resamples,)``.
    """
    card_days = rank_cards(
        is_fraud,
        scores,
        customer_codes=bootstrap.customer_codes,
        event_time=event_time,
        weights=weights,
    )
    return card_precision(
        card_days, cards_checked=cards_checked, multiplicity=bootstrap.multiplicity
    )


def resample_sum(values: Floats, *, bootstrap: CustomerBootstrap) -> Floats:
    """Sum one value per row on every resample. Shape ``(1 + resamples,)``.

    >>> draw = draw_customers(pd.Series(["a", "b"]), num_resamples=1, seed=0)
    >>> float(resample_sum(np.array([1.0, 2.0]), bootstrap=draw)[0])
    3.0
    """
    num_customers = bootstrap.multiplicity.shape[1]
    sums = np.bincount(bootstrap.customer_codes, weights=values, minlength=num_customers)
    return np.asarray(bootstrap.multiplicity @ sums)


def resample_mean(values: Floats, *, bootstrap: CustomerBootstrap) -> Floats:
    """Average one value per row on every resample. Shape ``(1 + resamples,)``."""
    sizes = resample_sum(np.ones(values.size), bootstrap=bootstrap)
    return resample_sum(values, bootstrap=bootstrap) / sizes


def find_interval(values: Floats) -> list[float]:
    """Return the central interval that holds 95 % of the resamples, NaN ones left out.

    Args:
        values: The plain metric, then its resamples. Shape ``(1 + resamples,)``.

    >>> find_interval(np.array([0.5, 0.0, 1.0, np.nan]))
    [0.025, 0.975]
    """
    return [float(bound) for bound in np.nanquantile(values[1:], TAILS)]
