"""Calibrated scores become draws of the frauds they announce, and of how well they rank them.

A row with a score of 0.2 is a fraud in one draw of five. Drawing every row of every resample would
cost seconds, so the riskiest rows are drawn one by one and all others in blocks of similar score.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from training.bootstrap import CustomerBootstrap
from training.encoding import Booleans, Floats, Integers
from training.metrics import RankCounts, summarise_ranks

NUM_SINGLE_ROWS = 2000
"""So many of the riskiest rows are thresholds of their own; the others are taken in blocks, in
which next to no fraud is expected: every row on its own gives the same to three decimals."""
NUM_BLOCKS = 100


def draw_average_precisions(
    scores: Floats, weights: Floats, *, bootstrap: CustomerBootstrap, seed: int
) -> Floats:
    """Draw frauds as the scores announce them and measure how well the scores then rank them.

    Args:
        scores: Calibrated probabilities. Shape ``(rows,)``.
        weights: How many answers each row stands for. Shape ``(rows,)``.
        bootstrap: The resamples; each draws its own frauds.
        seed: For the frauds.

    Returns:
        Shape ``(1 + resamples,)``; the first has every customer once, and drawn frauds too.
    """
    generator = np.random.default_rng(seed)
    blocks, singles = _find_blocks(scores)
    rows = _count_blocks(weights, blocks, bootstrap)
    frauds = generator.poisson(_count_blocks(weights * scores, blocks, bootstrap)).astype(float)
    drawn = generator.random((singles.size, rows.shape[1])) < scores[singles, None]
    frauds[: singles.size] = np.where(drawn, rows[: singles.size], 0.0)
    frauds = np.minimum(frauds, rows)
    return np.asarray(summarise_ranks(RankCounts(frauds, rows - frauds))["average_precision"])


def measure_average_precisions(
    is_fraud: Booleans, scores: Floats, weights: Floats, *, bootstrap: CustomerBootstrap
) -> Floats:
    """Measure the realised on the same blocks, so that the difference is none of theirs."""
    blocks, _ = _find_blocks(scores)
    rows = _count_blocks(weights, blocks, bootstrap)
    frauds = _count_blocks(weights * is_fraud, blocks, bootstrap)
    return np.asarray(summarise_ranks(RankCounts(frauds, rows - frauds))["average_precision"])


def _find_blocks(scores: Floats) -> tuple[Integers, Integers]:
    """Number the thresholds, riskiest first: a row each at the top, then blocks of many.

    Returns:
        The block of each row; and the rows that are one of their own, in the order of the blocks.
    """
    order = np.argsort(-scores, kind="stable")
    singles = order[:NUM_SINGLE_ROWS]
    blocks = np.empty(scores.size, dtype=np.int64)
    blocks[singles] = np.arange(singles.size)
    rest = order[NUM_SINGLE_ROWS:]
    blocks[rest] = singles.size + np.arange(rest.size) * NUM_BLOCKS // max(rest.size, 1)
    return blocks, singles


def _count_blocks(values: Floats, blocks: Integers, bootstrap: CustomerBootstrap) -> Floats:
    """Sum one value per row in each block on every resample. Shape ``(blocks, 1 + resamples)``."""
    shape = (int(blocks.max(initial=-1)) + 1, bootstrap.multiplicity.shape[1])
    cells = sparse.csr_array((values, (blocks, bootstrap.customer_codes)), shape=shape)
    return np.asarray(cells @ bootstrap.multiplicity.T)
