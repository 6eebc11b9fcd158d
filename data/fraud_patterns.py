"""A population, a day and its ordinary purchases become that day's frauds, in five patterns.

- ``card_testing``: 3 to 9 small amounts within minutes at several merchants, sometimes with one
  large amount after them. Seen by: purchases and merchants in the last hour, an unknown device.
  Hidden by: honest sprees; the burst's first purchase has no burst before it.
- ``account_takeover``: 1 to 4 high amounts within hours, mostly at night, from far away, on a new
  device. Seen by: distance, hour, amount and device together. Hidden by: travellers, night owls,
  new phones, and thieves who act by day, from near, or on the customer's own device.
- ``compromised_merchant``: for some weeks, cards used at one merchant are charged again within
  days, there or elsewhere. Seen by: the merchant's fraud rate once labels matured, the amount
  against its mean. Hidden by: its honest customers, who are the many, and by the label delay.
- ``ip_ring``: 6 to 14 accounts pay from one address and device, on some days of one or two weeks.
  Seen by: customers behind the address, more than in a home and fewer than at a mobile carrier.
  Hidden by: cafes and offices with as many.
- ``first_seen_high``: one high amount at a merchant the customer never used. Seen by: a new
  merchant and a high amount against the customer's own. Hidden by: honest big purchases.

Invariant: each pattern draws from its own stream of the day, so one pattern's factor never moves
another pattern's events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.fraud_behaviour import draw_prices, find_devices
from data.fraud_campaigns import Underworld
from data.fraud_events import (
    DAY_US,
    HOUR_US,
    PATTERNS,
    PROXY_IPS,
    RING_DEVICES,
    RING_IPS,
    Events,
    Flags,
    Floats,
    Integers,
    Rng,
    count_within,
    draw_fresh_devices,
    draw_fresh_ips,
    sum_within,
)
from data.fraud_population import CARD_TYPES, Population, draw_risky_merchants

# Episodes a customer and day, at factor 1.
CARD_TESTING_RATE = 0.0006
TAKEOVER_RATE = 0.0013
FIRST_SEEN_RATE = 0.0030
COMPROMISED_HITS = 0.2  # frauds per honest purchase at a leaking merchant
RING_ACTIVE_SHARE = 0.5  # of a ring's days
RING_PURCHASES = 6.5  # on an active day
NUM_PROXIES = 60
MINUTE_US = HOUR_US // 60


@dataclass(frozen=True)
class Scene:
    """What one pattern draws one day's frauds from.

    Attributes:
        population: Who buys and sells.
        underworld: The campaigns.
        ordinary: The day's legitimate events: a compromised merchant's victims are among them.
        day: Days since the world's first.
        factor: Multiplies how often the pattern strikes; 0 turns it off.
        rng: The day's and the pattern's own stream.
    """

    population: Population
    underworld: Underworld
    ordinary: Events
    day: int
    factor: float
    rng: Rng


def draw_card_testing(scene: Scene) -> Events:
    """Draw bursts of small amounts that try out stolen card numbers, prepaid ones more often."""
    rng = scene.rng
    victim = _draw_victims(scene, rate=CARD_TESTING_RATE, prepaid_weight=3.0)
    tests = rng.integers(3, 10, size=len(victim))
    cash_outs = (rng.random(len(victim)) < 0.4).astype(np.int64)
    episode = np.repeat(np.arange(len(victim)), tests + cash_outs)
    order = count_within(episode)
    is_cash_out = order == tests[episode]
    num = len(episode)

    pace = rng.choice([2.0, 6.0, 40.0], size=len(victim), p=[0.5, 0.35, 0.15]) * MINUTE_US
    gaps = (rng.exponential(1.0, num) * pace[episode]).astype(np.int64) + 1
    time = _draw_hours(scene, mean=14.0, deviation=7.0, size=len(victim))[episode]
    customer = victim[episode]
    typical = scene.population.customers.typical_amount[customer]
    small = rng.lognormal(np.log(4.5), 0.9, num)
    large = typical * rng.lognormal(np.log(2.5), 0.6, num)
    is_own_device = rng.random(len(victim)) < 0.4
    is_near = rng.random(len(victim)) < 0.5
    return _assemble(
        "card_testing",
        time=time + sum_within(gaps, episode),
        customer=customer,
        merchant=draw_risky_merchants(scene.population, size=num, rng=rng),
        amount=np.where(is_cash_out, large, small),
        ip=(PROXY_IPS + rng.integers(NUM_PROXIES, size=len(victim)))[episode],
        device=_draw_devices(scene, victim, is_own=is_own_device)[episode],
        place=_draw_places(scene, victim, is_near=is_near)[episode],
    )


def draw_account_takeover(scene: Scene) -> Events:
    """Draw thieves who empty an account within hours, while its owner sleeps."""
    rng = scene.rng
    victim = _draw_victims(scene, rate=TAKEOVER_RATE)
    count = rng.integers(1, 5, size=len(victim))
    episode = np.repeat(np.arange(len(victim)), count)
    num = len(episode)
    is_night = rng.random(len(victim)) < 0.6
    night = _draw_hours(scene, mean=2.5, deviation=1.6, size=len(victim))
    by_day = _draw_hours(scene, mean=15.0, deviation=4.0, size=len(victim))
    gaps = (rng.exponential(25.0, num) * MINUTE_US).astype(np.int64) + 1
    customer = victim[episode]
    typical = scene.population.customers.typical_amount[customer]
    is_near = rng.random(len(victim)) < 0.35
    is_own_device = rng.random(len(victim)) < 0.35
    return _assemble(
        "account_takeover",
        time=np.where(is_night, night, by_day)[episode] + sum_within(gaps, episode),
        customer=customer,
        merchant=draw_risky_merchants(scene.population, size=num, rng=rng),
        amount=typical * rng.lognormal(np.log(2.5), 0.7, num),
        ip=draw_fresh_ips(rng, size=len(victim))[episode],
        device=_draw_devices(scene, victim, is_own=is_own_device)[episode],
        place=_draw_places(scene, victim, is_near=is_near)[episode],
    )


def draw_compromised_merchant(scene: Scene) -> Events:
    """Draw second charges to cards that were used at a leaking merchant today."""
    rng, ordinary = scene.rng, scene.ordinary
    leaking = scene.underworld.compromised.find_active(scene.day)
    exposed = np.flatnonzero(np.isin(ordinary.merchant, leaking))
    hits = rng.poisson(COMPROMISED_HITS * scene.factor, size=len(exposed))
    source = np.repeat(exposed, hits)
    num = len(source)
    customer = ordinary.customer[source]
    is_there = rng.random(num) < 0.8
    elsewhere = draw_risky_merchants(scene.population, size=num, rng=rng)
    merchant = np.where(is_there, ordinary.merchant[source], elsewhere)
    price = draw_prices(scene.population, customer=customer, merchant=merchant, rng=rng)
    wait = (rng.exponential(20.0, num) * HOUR_US).astype(np.int64) + MINUTE_US
    return _assemble(
        "compromised_merchant",
        time=ordinary.time[source] + wait,
        customer=customer,
        merchant=merchant,
        amount=price * rng.uniform(1.2, 3.5, num),
        ip=draw_fresh_ips(rng, size=num),
        device=_draw_devices(scene, customer, is_own=rng.random(num) < 0.45),
        place=_draw_places(scene, customer, is_near=rng.random(num) < 0.6),
    )


def draw_ip_ring(scene: Scene) -> Events:
    """Draw what rings of accounts spend from one address and one device."""
    rng, underworld = scene.rng, scene.underworld
    active = underworld.rings.find_active(scene.day)
    active = active[rng.random(len(active)) < RING_ACTIVE_SHARE]
    ring = np.repeat(active, rng.poisson(RING_PURCHASES * scene.factor, size=len(active)))
    num = len(ring)
    member = np.floor(rng.random(num) * underworld.ring_size[ring]).astype(np.int64)
    customer = underworld.ring_members[ring, member]
    choice = rng.integers(underworld.ring_merchants.shape[1], size=num)
    typical = scene.population.customers.typical_amount[customer]
    place = scene.population.city_place[underworld.ring_city[ring]]
    return _assemble(
        "ip_ring",
        time=_draw_hours(scene, mean=16.0, deviation=4.0, size=num),
        customer=customer,
        merchant=underworld.ring_merchants[ring, choice],
        amount=typical * rng.lognormal(np.log(1.4), 0.5, num),
        ip=RING_IPS + ring,
        device=RING_DEVICES + ring,
        place=place + rng.normal(0.0, 0.05, (num, 2)),
    )


def draw_first_seen_high(scene: Scene) -> Events:
    """Draw single high amounts at merchants outside the customer's favourites."""
    rng = scene.rng
    victim = _draw_victims(scene, rate=FIRST_SEEN_RATE)
    num = len(victim)
    typical = scene.population.customers.typical_amount[victim]
    return _assemble(
        "first_seen_high",
        time=_draw_hours(scene, mean=14.0, deviation=5.0, size=num),
        customer=victim,
        merchant=_draw_unused_merchants(scene, victim),
        amount=typical * rng.lognormal(np.log(4.5), 0.6, num),
        ip=draw_fresh_ips(rng, size=num),
        device=_draw_devices(scene, victim, is_own=rng.random(num) < 0.5),
        place=_draw_places(scene, victim, is_near=rng.random(num) < 0.7),
    )


DRAW_PATTERN = {
    "card_testing": draw_card_testing,
    "account_takeover": draw_account_takeover,
    "compromised_merchant": draw_compromised_merchant,
    "ip_ring": draw_ip_ring,
    "first_seen_high": draw_first_seen_high,
}


def _assemble(
    pattern: str,
    *,
    time: Integers,
    customer: Integers,
    merchant: Integers,
    amount: Floats,
    ip: Integers,
    device: Integers,
    place: Floats,
) -> Events:
    """Build the events of one pattern; ``place`` holds latitude and longitude side by side."""
    code = np.full(len(time), 1 + PATTERNS.index(pattern))
    latitude, longitude = place[:, 0], place[:, 1]
    return Events(time, customer, merchant, amount, ip, device, latitude, longitude, code)


def _draw_victims(scene: Scene, *, rate: float, prepaid_weight: float = 1.0) -> Integers:
    """Draw customers, one per episode; holders of prepaid cards count ``prepaid_weight`` times."""
    customers = scene.population.customers
    is_prepaid = customers.card_type == CARD_TYPES.index("prepaid")
    weight = np.where(is_prepaid, prepaid_weight, 1.0)
    episodes = scene.rng.poisson(rate * scene.factor * len(customers))
    position = np.searchsorted(np.cumsum(weight) / weight.sum(), scene.rng.random(episodes))
    return np.minimum(position, len(customers) - 1)


def _draw_hours(scene: Scene, *, mean: float, deviation: float, size: int) -> Integers:
    """Draw instants of the day around an hour, wrapped at midnight so that they stay in the day."""
    hours = scene.rng.normal(mean, deviation, size) % 24.0
    return scene.day * DAY_US + np.minimum((hours * HOUR_US).astype(np.int64), DAY_US - 1)


def _draw_devices(scene: Scene, customer: Integers, *, is_own: Flags) -> Integers:
    """Give each customer's first device where ``is_own``, else one never seen."""
    slot = np.zeros(len(customer), dtype=np.int64)
    own = find_devices(scene.population.customers, customer=customer, slot=slot, day=scene.day)
    return np.where(is_own, own, draw_fresh_devices(scene.rng, size=len(customer)))


def _draw_places(scene: Scene, customer: Integers, *, is_near: Flags) -> Floats:
    """Draw where the purchase seems to come from: the customer's own town, or any city."""
    population, num = scene.population, len(customer)
    places = population.city_place
    anywhere = places[scene.rng.integers(len(places), size=num)]
    own = places[population.customers.city[customer]]
    scatter = scene.rng.normal(0.0, 0.1, (num, 2))
    return np.where(is_near[:, None], own, anywhere) + scatter


def _draw_unused_merchants(scene: Scene, customer: Integers) -> Integers:
    """Draw a merchant outside each customer's favourites: the first of four tries that is one."""
    population, tries = scene.population, 4
    risky = draw_risky_merchants(population, size=len(customer) * tries, rng=scene.rng)
    choices: Integers = risky.reshape(len(customer), tries)
    favourites = population.customers.favourites[customer]
    is_used = (choices[:, :, None] == favourites[:, None, :]).any(axis=2)  # (customers, tries)
    chosen: Integers = choices[np.arange(len(customer)), is_used.argmin(axis=1)]
    return chosen
