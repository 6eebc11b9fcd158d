"""A population and a day become that day's legitimate purchases.

Honest people look like thieves now and then, and that is the point: they travel (far, new shops),
replace phones and borrow browsers (unknown device), buy a sofa (high amount, often in a shop they
never used), shop in sprees (many purchases an hour), sit behind an address with a hundred others,
and some of them live at night. Invariant: a day's events lie at or after its first instant and
depend on nothing but the population, the day, its volume and its own stream.
"""

from __future__ import annotations

import numpy as np

from data.fraud_events import (
    DAY_US,
    GATEWAY_IPS,
    HOUR_US,
    LEGITIMATE,
    VENUE_IPS,
    Events,
    Flags,
    Floats,
    Integers,
    Rng,
    draw_fresh_devices,
)
from data.fraud_population import Customers, Population, draw_merchants

DEVICE_GENERATIONS = 1024  # device codes a customer's slot may use up
SPREE_SHARE = 0.026  # purchases that are followed by more within the hour
BIG_PURCHASE_SHARE = 0.02
FAVOURITE_SHARE = 0.84
FAVOURITE_SHARE_ON_TRIPS = 0.35
GUEST_DEVICE_SHARE = 0.025
MISPLACED_SHARE = 0.012  # a VPN, or an address database that is wrong
HOME_SHARE, GATEWAY_SHARE = 0.55, 0.35  # the rest pays from a shared venue
# Purchases by hour of the day, 0 to 23, for the half that does not follow a person's own rhythm.
HOURLY_WEIGHTS = np.array(
    [2, 1, 1, 1, 1, 2, 5, 10, 14, 16, 18, 20, 24, 22, 19, 19, 21, 25, 28, 27, 22, 15, 9, 5]
)


def draw_ordinary_day(
    population: Population,
    *,
    day: int,
    is_weekend: bool,
    volume_factor: float,
    rng: Rng,
) -> Events:
    """Draw the legitimate purchases of one day.

    Args:
        population: Who buys and sells.
        day: Days since the world's first.
        is_weekend: Whether the day is a Saturday or a Sunday.
        volume_factor: Multiplies how many purchases there are.
        rng: The day's own stream.

    Returns:
        The day's events, in no particular order.
    """
    customers = population.customers
    first = _draw_buyers(customers, is_weekend=is_weekend, volume_factor=volume_factor, rng=rng)
    extra = np.where(rng.random(len(first)) < SPREE_SHARE, 1 + rng.poisson(1.6, len(first)), 0)
    customer = np.concatenate([first, np.repeat(first, extra)])
    is_spree = np.arange(len(customer)) >= len(first)
    time = _draw_times(customers.peak_hour[first], rng=rng)
    lag = rng.integers(HOUR_US, size=int(extra.sum()))
    time = np.concatenate([time, np.repeat(time, extra) + lag])

    is_travelling, city = find_whereabouts(customers, customer=customer, day=day)
    merchant, is_favourite = _choose_merchants(
        population, customer=customer, city=city, is_travelling=is_travelling, rng=rng
    )
    amount = draw_prices(population, customer=customer, merchant=merchant, rng=rng)
    is_big = rng.random(len(customer)) < BIG_PURCHASE_SHARE * np.where(is_favourite, 0.5, 3.0)
    amount = amount * np.where(is_big, rng.uniform(2.0, 7.0, len(customer)), 1.0)
    amount = amount * np.where(is_spree, rng.uniform(0.2, 1.0, len(customer)), 1.0)
    ip, place = _draw_connections(
        population, customer=customer, city=city, is_travelling=is_travelling, rng=rng
    )
    return Events(
        time=day * DAY_US + time,
        customer=customer,
        merchant=merchant,
        amount=amount,
        ip=ip,
        device=_draw_devices(customers, customer=customer, day=day, rng=rng),
        latitude=place[:, 0],
        longitude=place[:, 1],
        pattern=np.full(len(customer), LEGITIMATE),
    )


def find_whereabouts(
    customers: Customers, *, customer: Integers, day: int
) -> tuple[Flags, Integers]:
    """Tell who is on a trip on ``day``, and in which city each customer is."""
    since = day + customers.trip_phase[customer]
    trip = (since // customers.trip_period[customer]).astype(np.int64)
    is_travelling = since - trip * customers.trip_period[customer] < customers.trip_days[customer]
    destination = customers.trip_city[customer, trip % customers.trip_city.shape[1]]
    return is_travelling, np.where(is_travelling, destination, customers.city[customer])


def find_devices(customers: Customers, *, customer: Integers, slot: Integers, day: int) -> Integers:
    """Return the device in use in ``slot`` on ``day``; each is replaced when its life is over."""
    age = day + customers.device_phase[customer, slot]
    generation = (age // customers.device_lifetime[customer, slot]).astype(np.int64)
    return (customer * 3 + slot) * DEVICE_GENERATIONS + generation % DEVICE_GENERATIONS


def draw_prices(
    population: Population, *, customer: Integers, merchant: Integers, rng: Rng
) -> Floats:
    """Draw what each customer spends at each merchant: its price times their level, log-normal."""
    merchants = population.merchants
    noise = np.exp(merchants.spread[merchant] * rng.standard_normal(len(customer)))
    prices: Floats = merchants.price[merchant] * population.customers.level[customer] * noise
    return prices


def _draw_buyers(
    customers: Customers, *, is_weekend: bool, volume_factor: float, rng: Rng
) -> Integers:
    """Draw who buys, once a purchase; a customer's week has the same mean as without weekends."""
    weekend = customers.weekend_factor
    rhythm = weekend if is_weekend else (7.0 - 2.0 * weekend) / 5.0
    counts = rng.poisson(customers.daily_rate * rhythm * volume_factor)
    return np.repeat(np.arange(len(customers)), counts)


def _draw_times(peak_hour: Floats, *, rng: Rng) -> Integers:
    """Draw microseconds since midnight: half around one's own hour, half as everybody does."""
    num = len(peak_hour)
    own = (peak_hour + rng.normal(0.0, 2.2, num)) % 24.0
    cumulated = HOURLY_WEIGHTS.cumsum() / HOURLY_WEIGHTS.sum()
    common = np.searchsorted(cumulated, rng.random(num), side="right") + rng.random(num)
    hour = np.where(rng.random(num) < 0.5, own, common)
    return np.minimum((hour * HOUR_US).astype(np.int64), DAY_US - 1)


def _choose_merchants(
    population: Population, *, customer: Integers, city: Integers, is_travelling: Flags, rng: Rng
) -> tuple[Integers, Flags]:
    """Choose a favourite, the first ones most, or something else in the city or online."""
    customers = population.customers
    num_favourites = customers.favourites.shape[1]
    rank = np.floor(num_favourites ** rng.random(len(customer))).astype(np.int64) - 1
    share = np.where(is_travelling, FAVOURITE_SHARE_ON_TRIPS, FAVOURITE_SHARE)
    is_favourite = rng.random(len(customer)) < share
    other = draw_merchants(
        population.city_choice, city=city, num_merchants=len(population.merchants), rng=rng
    )
    return np.where(is_favourite, customers.favourites[customer, rank], other), is_favourite


def _draw_connections(
    population: Population, *, customer: Integers, city: Integers, is_travelling: Flags, rng: Rng
) -> tuple[Integers, Floats]:
    """Draw the address each purchase comes from, and where that address seems to be."""
    customers, num = population.customers, len(customer)
    kind = rng.random(num)
    is_home = (kind < HOME_SHARE) & ~is_travelling
    is_gateway = ~is_home & (kind < HOME_SHARE + GATEWAY_SHARE)
    gateway = GATEWAY_IPS + city * population.gateways + customer % population.gateways
    venue = VENUE_IPS + city * population.venues + rng.integers(population.venues, size=num)
    ip = np.where(is_home, customers.home_ip[customer], np.where(is_gateway, gateway, venue))

    home = np.column_stack([customers.latitude[customer], customers.longitude[customer]])
    place = np.where(is_home[:, None], home, population.city_place[city])
    scatter = np.where(is_home, 0.01, 0.1)  # degrees: one street, or one town
    is_misplaced = rng.random(num) < MISPLACED_SHARE
    elsewhere = population.city_place[rng.integers(len(population.city_place), size=num)]
    place = np.where(is_misplaced[:, None], elsewhere, place)
    return ip, place + scatter[:, None] * rng.standard_normal((num, 2))


def _draw_devices(customers: Customers, *, customer: Integers, day: int, rng: Rng) -> Integers:
    """Draw one of the customer's devices, the first most; sometimes a borrowed one."""
    num = len(customer)
    slot = np.floor(customers.num_devices[customer] * rng.random(num) ** 1.7).astype(np.int64)
    own = find_devices(customers, customer=customer, slot=slot, day=day)
    is_guest = rng.random(num) < GUEST_DEVICE_SHARE
    return np.where(is_guest, draw_fresh_devices(rng, size=num), own)
