"""A number of rows becomes parquet files of card transactions, written one slice of time at a time.

For benchmarks: half a year, some cards a hundred times as busy as others, more by day than by
night, ids that are no row numbers, rows in time order across all files. The number of cards grows
with the number of rows, so that a larger history has more cards and not busier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.files import check_free_space

ROWS_PER_FILE = 1_000_000
DAYS = 183
START = np.datetime64("2026-01-01", "us")
ROWS_PER_CARD = 2 * DAYS
"""Two a day on average, as the fraud detection handbook's customers."""
BUSYNESS_SIGMA = 1.0
"""Of the log-normal share of the rows that each card has."""
SHARE_BY_HOUR = {0: 0.0, 7: 0.08, 23: 0.97, 24: 1.0}
"""Which share of a day's transactions happened before an hour: few at night."""
BYTES_PER_ROW = 20
"""Of the parquet files: 15 measured, and room to spare."""
HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class _Cards:
    """Each card's id, share of the rows (cumulative) and typical amount."""

    ids: NDArray[np.int64]
    cumulative_share: NDArray[np.float64]
    log_amount: NDArray[np.float64]


def write_bench_transactions(
    folder: Path, *, num_rows: int, seed: int, advance: Callable[[float], None]
) -> list[Path]:
    """Write card transactions; the same seed and number of rows write the same.

    Args:
        folder: Where the files go.
        num_rows: How many rows in all.
        seed: Of every draw.
        advance: Told how many rows each file has.

    Returns:
        The files, in time order: ``transaction_id`` (row number), ``card_id``, ``event_time``,
        ``amount``.

    Raises:
        OSError: If the disk has no room for them.
    """
    check_free_space(folder, num_rows * BYTES_PER_ROW)
    folder.mkdir(parents=True, exist_ok=True)
    cards = _draw_cards(max(1, num_rows // ROWS_PER_CARD), np.random.default_rng([seed, 0]))
    edges = [*range(0, num_rows, ROWS_PER_FILE), num_rows]
    paths = []
    for number, (first, last) in enumerate(pairwise(edges)):
        rows = _draw_rows(cards, first, last, num_rows, np.random.default_rng([seed, number + 1]))
        paths.append(folder / f"transactions-{number:05d}.parquet")
        pq.write_table(rows, paths[-1])
        advance(last - first)
    return paths


def _draw_cards(num_cards: int, random: np.random.Generator) -> _Cards:
    share = random.lognormal(0.0, BUSYNESS_SIGMA, num_cards)
    return _Cards(
        ids=random.permutation(num_cards) * 7919
        + 4_000_000_000_000_000,  # 16 digits, no row number
        cumulative_share=np.cumsum(share / share.sum()),
        log_amount=random.normal(3.0, 0.7, num_cards),
    )


def _draw_rows(
    cards: _Cards, first: int, last: int, num_rows: int, random: np.random.Generator
) -> pa.Table:
    """Draw the rows ``[first, last)``, which lie in the same share of the time."""
    size = last - first
    days, part_of_day = np.divmod(
        np.sort(random.uniform(first / num_rows, last / num_rows, size)) * DAYS, 1.0
    )
    hours = 24 * days + np.interp(part_of_day, [*SHARE_BY_HOUR.values()], [*SHARE_BY_HOUR])
    times = START + (hours * HOUR_US).astype("timedelta64[us]")
    card = np.searchsorted(cards.cumulative_share, random.random(size), side="right")
    card = np.minimum(card, cards.ids.size - 1)
    amounts = np.exp(random.normal(cards.log_amount[card], 0.6))
    return pa.table(
        {
            "transaction_id": np.arange(first, last),
            "card_id": cards.ids[card],
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "amount": np.round(amounts, 2),
        }
    )
