"""A seed, a size and a schedule of changes become transactions and their late labels.

The world is built day by day: legitimate purchases (``data.fraud_behaviour``), then five fraud
patterns (``data.fraud_patterns``). Invariant: every purpose and every day draws from a stream of
its own, so a change scheduled for day d leaves every event and label before day d as it was, bit
for bit; and the same seed gives the same world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from configs.sections import WorldChange, WorldSize
from data.fraud_behaviour import draw_ordinary_day
from data.fraud_campaigns import Underworld, build_underworld
from data.fraud_events import (
    DAY_US,
    LEGITIMATE,
    PATTERNS,
    Events,
    Floats,
    Rng,
    join_events,
    name_devices,
    name_ips,
    name_positions,
)
from data.fraud_patterns import DRAW_PATTERN, Scene
from data.fraud_population import CARD_TYPES, CATEGORIES, Population, build_population

PURPOSES = ("population", "underworld", "ordinary", "labels", *PATTERNS)
EARLIEST_REPORT = 0.01  # of the label delay
REPORT_SHAPE = (1.2, 2.5)  # beta distribution: most frauds are noticed in the first third


@dataclass(frozen=True)
class World:
    """What stays the same from day to day."""

    seed: int
    start: pd.Timestamp
    population: Population
    underworld: Underworld
    label_delay_days: int
    never_reported_share: float


def simulate_world(
    size: WorldSize,
    *,
    seed: int,
    start_time: datetime,
    label_delay_days: int,
    never_reported_share: float,
    changes: Sequence[WorldChange] = (),
    advance: Callable[[float], None] = lambda _: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate a world of card transactions.

    Args:
        size: Customers, merchants and days.
        seed: Decides everything that is drawn.
        start_time: Midnight UTC of the first day.
        label_delay_days: A fraud is reported within so many days; without a report the transaction
            counts as legitimate exactly then.
        never_reported_share: Transactions whose truth never arrives, in [0, 1].
        changes: From its day on, the latest change alone describes the world, in factors of the
            unchanged one; what it does not name has factor 1.
        advance: Called with 1 when a day is done, for a progress bar.

    Returns:
        Transactions, sorted by ``event_time``, with every column of the contract; and labels in the
        same order, with ``fraud_pattern`` ("" when legitimate), for those that ever get one.

    Raises:
        ValueError: If ``start_time`` is not midnight UTC, or a change names an unknown pattern.
    """
    _check_patterns(changes)
    population = build_population(size, rng=_open_stream(seed, "population"))
    underworld = build_underworld(
        population, num_days=size.num_days, rng=_open_stream(seed, "underworld")
    )
    start = _check_start(start_time)
    world = World(seed, start, population, underworld, label_delay_days, never_reported_share)
    events, label_delays = [], []
    for day in range(size.num_days):
        events.append(_draw_day(world, day=day, change=find_change(changes, day=day)))
        label_delays.append(_draw_label_delays(world, day=day, events=events[-1]))
        advance(1)
    return _tabulate(
        world, join_events(events), label_delay=np.concatenate(label_delays), num_days=size.num_days
    )


def find_change(changes: Sequence[WorldChange], *, day: int) -> WorldChange:
    """Return the change in force on ``day``: the latest begun; on one day, the one named last.

    >>> schedule = [WorldChange(day=5, volume_factor=2), WorldChange(day=9, amount_factor=3)]
    >>> [find_change(schedule, day=day).volume_factor for day in (4, 5, 8, 9)]
    [1.0, 2.0, 2.0, 1.0]
    """
    in_force = WorldChange(day=0)
    for change in sorted(changes, key=lambda change: change.day):
        if change.day <= day:
            in_force = change
    return in_force


def _open_stream(seed: int, purpose: str, *, day: int = 0) -> Rng:
    """Open the random stream of one purpose on one day."""
    return np.random.default_rng([seed, PURPOSES.index(purpose), day])


def _check_start(start_time: datetime) -> pd.Timestamp:
    """Return the first instant, from which days and hours are counted."""
    start = pd.Timestamp(start_time).tz_convert("UTC").as_unit("us")
    if start != start.normalize():
        raise ValueError(f"data.start_time is {start_time.isoformat()}; it must be midnight UTC")
    return start


def _check_patterns(changes: Sequence[WorldChange]) -> None:
    """Refuse a change of a pattern that does not exist."""
    for name in (name for change in changes for name in change.pattern_factors):
        if name not in PATTERNS:
            allowed = ", ".join(PATTERNS)
            raise ValueError(f"data.changes names pattern '{name}'; it must be one of: {allowed}")


def _draw_day(world: World, *, day: int, change: WorldChange) -> Events:
    """Draw one day's events, legitimate ones first, amounts in cents."""
    ordinary = draw_ordinary_day(
        world.population,
        day=day,
        is_weekend=(world.start + pd.Timedelta(days=day)).dayofweek >= 5,
        volume_factor=change.volume_factor,
        rng=_open_stream(world.seed, "ordinary", day=day),
    )
    parts = [ordinary]
    for name, draw_pattern in DRAW_PATTERN.items():
        factor = change.pattern_factors.get(name, 1.0)
        stream = _open_stream(world.seed, name, day=day)
        scene = Scene(world.population, world.underworld, ordinary, day, factor, stream)
        parts.append(draw_pattern(scene))
    events = join_events(parts)
    cents = np.maximum(np.round(events.amount * change.amount_factor * 100.0), 1.0)
    return replace(events, amount=cents / 100.0)


def _draw_label_delays(world: World, *, day: int, events: Events) -> Floats:
    """Draw how long after each event its label arrives, microseconds; NaN where it never does."""
    rng, num = _open_stream(world.seed, "labels", day=day), len(events)
    longest = float(world.label_delay_days * DAY_US)
    share = EARLIEST_REPORT + (1.0 - EARLIEST_REPORT) * rng.beta(*REPORT_SHAPE, size=num)
    delay = np.where(events.pattern == LEGITIMATE, longest, np.floor(longest * share))
    return np.where(rng.random(num) < world.never_reported_share, np.nan, delay)


def _tabulate(
    world: World, events: Events, *, label_delay: Floats, num_days: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sort by time, number, and name; what would happen after the last day did not happen yet."""
    order = np.argsort(events.time, kind="stable")
    order = order[events.time[order] < num_days * DAY_US]
    events, label_delay = events.take(order), label_delay[order]
    customers, merchants = world.population.customers, world.population.merchants
    categories = np.array(list(CATEGORIES), dtype=object)
    transactions = pd.DataFrame(
        {
            "transaction_id": name_positions("t", count=len(events) + 1, digits=8)[1:],
            "event_time": world.start + pd.to_timedelta(events.time, unit="us").as_unit("us"),
            "customer_id": name_positions("c", count=len(customers))[events.customer],
            "card_type": np.array(CARD_TYPES, dtype=object)[customers.card_type[events.customer]],
            "merchant_id": name_positions("m", count=len(merchants))[events.merchant],
            "merchant_category": categories[merchants.category[events.merchant]],
            "amount": events.amount,
            "ip": name_ips(events.ip),
            "device_id": name_devices(events.device),
            "latitude": np.round(events.latitude, 4),
            "longitude": np.round(events.longitude, 4),
        }
    )
    is_labelled = ~np.isnan(label_delay)
    delay = pd.to_timedelta(label_delay[is_labelled].astype(np.int64), unit="us").as_unit("us")
    pattern = events.pattern[is_labelled]
    labels = pd.DataFrame(
        {
            "transaction_id": transactions["transaction_id"].to_numpy()[is_labelled],
            "is_fraud": pattern != LEGITIMATE,
            "label_time": transactions["event_time"].array[is_labelled] + delay,
            "fraud_pattern": np.array(["", *PATTERNS], dtype=object)[pattern],
        }
    )
    return transactions, labels
