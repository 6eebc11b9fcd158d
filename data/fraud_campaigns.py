"""A population becomes what its fraudsters have arranged: leaking merchants and rings of accounts.

Invariant: campaigns are laid out before the first day, from one stream, whatever the schedule says;
a pattern's factor changes how busy a campaign is, never which campaigns there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.fraud_events import Integers, Rng
from data.fraud_population import NUM_CITIES, Population, draw_risky_merchants

COMPROMISED_SHARE = 0.009  # merchants that leak at a time
COMPROMISED_POPULARITY = (0.6, 0.95)  # quantiles of popularity they come from
COMPROMISED_DAYS = (18, 36)  # shortest, longest + 1
CUSTOMERS_PER_RING = 800
RING_DAYS = (7, 16)
RING_SIZE = (6, 15)
MERCHANTS_PER_RING = 3


@dataclass(frozen=True)
class Campaigns:
    """Who is active when: ``target[i]`` in ``[start_day[i], end_day[i])``."""

    start_day: Integers
    end_day: Integers
    target: Integers

    def find_active(self, day: int) -> Integers:
        """Return the targets active on ``day``."""
        return self.target[(self.start_day <= day) & (day < self.end_day)]


@dataclass(frozen=True)
class Underworld:
    """What fraudsters have arranged beforehand.

    Attributes:
        compromised: Merchants whose cards leak, and when.
        rings: Ring numbers, and when each is active.
        ring_members: Customers, shape (rings, largest ring); a ring uses its first ``ring_size``.
        ring_size: Accounts in each ring.
        ring_merchants: Where each ring spends, shape (rings, ``MERCHANTS_PER_RING``).
        ring_city: Where each ring's address is.
    """

    compromised: Campaigns
    rings: Campaigns
    ring_members: Integers
    ring_size: Integers
    ring_merchants: Integers
    ring_city: Integers


def build_underworld(population: Population, *, num_days: int, rng: Rng) -> Underworld:
    """Lay out every campaign of a world of ``num_days`` days; at least one of each kind at a time.

    Busy merchants leak, but not the busiest few, who guard themselves.
    """
    slots = max(1, round(COMPROMISED_SHARE * len(population.merchants)))
    start, end = _lay_out(slots, num_days=num_days, lengths=COMPROMISED_DAYS, rng=rng)
    popularity = population.merchants.popularity
    low, high = np.quantile(popularity, COMPROMISED_POPULARITY)
    leaking = np.flatnonzero((popularity >= low) & (popularity <= high))
    compromised = Campaigns(start, end, rng.choice(leaking, size=len(start)))

    slots = max(1, round(len(population.customers) / CUSTOMERS_PER_RING))
    start, end = _lay_out(slots, num_days=num_days, lengths=RING_DAYS, rng=rng)
    rings = len(start)
    ring_merchants = draw_risky_merchants(population, size=rings * MERCHANTS_PER_RING, rng=rng)
    return Underworld(
        compromised=compromised,
        rings=Campaigns(start, end, rng.permutation(rings)),
        ring_members=rng.integers(len(population.customers), size=(rings, RING_SIZE[1] - 1)),
        ring_size=rng.integers(*RING_SIZE, size=rings),
        ring_merchants=ring_merchants.reshape(rings, MERCHANTS_PER_RING),
        ring_city=rng.integers(NUM_CITIES, size=rings),
    )


def _lay_out(
    slots: int, *, num_days: int, lengths: tuple[int, int], rng: Rng
) -> tuple[Integers, Integers]:
    """Fill each slot with campaigns one after another, a few idle days between them."""
    count = num_days // lengths[0] + 3
    length = rng.integers(*lengths, size=(slots, count))
    step = length + rng.integers(lengths[0] // 2, size=(slots, count))
    first = -rng.integers(lengths[1], size=(slots, 1))  # some are under way on the first day
    start = step.cumsum(axis=1) - step + first
    return start.ravel(), (start + length).ravel()
