"""A seed becomes the people, shops and networks of a simulated world, before anything happens.

Invariant: drawn from one stream, before the first day, and never changed by a schedule; whatever a
customer does on a day follows from these columns, the day, and that day's own stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.sections import WorldSize
from data.fraud_events import Floats, Integers, Rng

NUM_CITIES = 12
NUM_FAVOURITES = 12
NUM_TRIPS = 8
ONLINE = -1
CUSTOMERS_PER_GATEWAY = 150  # a mobile carrier's address stands for this many people
CUSTOMERS_PER_VENUE = 60  # cafes and offices with one address for everybody in them
TRANSACTIONS_A_DAY = 1.37  # first purchases; sprees add the rest, up to about 1.45
CARD_TYPES = ("debit", "credit", "prepaid", "corporate")
CARD_SHARES = (0.5, 0.34, 0.1, 0.06)


@dataclass(frozen=True)
class Category:
    """A kind of merchant.

    Attributes:
        price: Median amount, account currency.
        spread: Standard deviation of the amount's logarithm.
        merchants: Share of merchants (relative weight).
        visits: Popularity of one such merchant (relative weight).
        online: Share of such merchants without a place.
        risk: How much fraudsters like it (relative weight).
    """

    price: float
    spread: float
    merchants: float
    visits: float
    online: float
    risk: float


CATEGORIES = {
    "grocery": Category(32, 0.6, 14, 5.0, 0.1, 0.4),
    "fuel": Category(46, 0.4, 7, 3.0, 0.0, 0.6),
    "restaurant": Category(27, 0.6, 20, 1.6, 0.1, 0.4),
    "transport": Category(8, 0.8, 5, 4.0, 0.4, 0.5),
    "digital": Category(9, 0.9, 7, 4.0, 1.0, 2.0),
    "pharmacy": Category(18, 0.6, 8, 1.2, 0.2, 0.3),
    "fashion": Category(62, 0.7, 14, 1.0, 0.5, 1.0),
    "home": Category(75, 0.8, 9, 0.7, 0.4, 0.8),
    "electronics": Category(150, 0.9, 6, 0.7, 0.6, 3.0),
    "travel": Category(230, 0.8, 4, 0.5, 0.8, 1.6),
    "gaming": Category(16, 1.0, 4, 1.4, 1.0, 2.2),
    "jewellery": Category(180, 0.9, 2, 0.2, 0.3, 3.2),
}


@dataclass(frozen=True)
class Merchants:
    """One position a merchant; ``city`` is ``ONLINE`` for those without a place."""

    category: Integers
    city: Integers
    price: Floats
    spread: Floats
    popularity: Floats
    risk: Floats

    def __len__(self) -> int:
        return len(self.category)


@dataclass(frozen=True)
class Customers:
    """One position a customer.

    ``level`` multiplies prices, ``typical_amount`` is what an ordinary purchase costs them,
    ``daily_rate`` is purchases a day; trips recur every ``trip_period`` days from ``-trip_phase``.
    ``favourites`` holds merchants, the most used first; ``num_devices`` are in use at a time, each
    replaced every ``device_lifetime`` days.
    """

    city: Integers
    latitude: Floats
    longitude: Floats
    card_type: Integers
    level: Floats
    typical_amount: Floats
    daily_rate: Floats
    weekend_factor: Floats
    peak_hour: Floats
    home_ip: Integers
    num_devices: Integers
    device_lifetime: Floats  # (customers, 3)
    device_phase: Floats  # (customers, 3)
    favourites: Integers  # (customers, NUM_FAVOURITES)
    trip_period: Floats
    trip_phase: Floats
    trip_days: Floats
    trip_city: Integers  # (customers, NUM_TRIPS)

    def __len__(self) -> int:
        return len(self.city)


@dataclass(frozen=True)
class Population:
    """Customers, merchants and cities.

    Attributes:
        customers: Who buys.
        merchants: Who sells.
        city_place: Latitude and longitude, shape (cities, 2), degrees.
        city_choice: For ``draw_merchants``: city + cumulated share of its merchants, flat.
        risk_choice: Cumulated share of each merchant in fraudsters' taste.
        gateways: Mobile addresses a city.
        venues: Shared addresses a city.
    """

    customers: Customers
    merchants: Merchants
    city_place: Floats
    city_choice: Floats
    risk_choice: Floats
    gateways: int
    venues: int


def build_population(size: WorldSize, *, rng: Rng) -> Population:
    """Draw the people and shops of a world."""
    city_place = np.column_stack(
        [rng.uniform(42.0, 56.0, NUM_CITIES), rng.uniform(-4.0, 22.0, NUM_CITIES)]
    )
    city_share = _cumulate(1.0 / np.sqrt(np.arange(1.0, NUM_CITIES + 1.0)))
    merchants = _draw_merchant_columns(size.num_merchants, city_share=city_share, rng=rng)
    is_near = (merchants.city == np.arange(NUM_CITIES)[:, None]) | (merchants.city == ONLINE)
    weights = merchants.popularity * np.where(is_near, 1.0, 0.01)  # (cities, merchants)
    cumulated = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    city_choice = (cumulated + np.arange(NUM_CITIES)[:, None]).ravel()
    customers = _draw_customer_columns(
        size.num_customers,
        city_share=city_share,
        city_place=city_place,
        city_choice=city_choice,
        merchants=merchants,
        rng=rng,
    )
    people_a_city = size.num_customers / NUM_CITIES
    return Population(
        customers=customers,
        merchants=merchants,
        city_place=city_place,
        city_choice=city_choice,
        risk_choice=_cumulate(merchants.risk),
        gateways=max(1, round(people_a_city / CUSTOMERS_PER_GATEWAY)),
        venues=max(1, round(people_a_city / CUSTOMERS_PER_VENUE)),
    )


def draw_merchants(
    city_choice: Floats, *, city: Integers, num_merchants: int, rng: Rng
) -> Integers:
    """Draw one merchant for somebody in each ``city``: popular ones there or online, mostly."""
    position = np.searchsorted(city_choice, city + rng.random(city.shape), side="right")
    merchant: Integers = np.minimum(position - city * num_merchants, num_merchants - 1)
    return merchant


def draw_risky_merchants(population: Population, *, size: int, rng: Rng) -> Integers:
    """Draw merchants by what fraudsters like."""
    position = np.searchsorted(population.risk_choice, rng.random(size), side="right")
    return np.minimum(position, len(population.merchants) - 1)


def _cumulate(weights: Floats) -> Floats:
    """Return the running share of ``weights``; its last value is 1."""
    return np.asarray(np.cumsum(weights) / np.sum(weights), dtype=np.float64)


def _draw_merchant_columns(num: int, *, city_share: Floats, rng: Rng) -> Merchants:
    """Draw categories, places, and a popularity that falls with rank as Zipf's law says."""
    table = list(CATEGORIES.values())
    share = _cumulate(np.array([item.merchants for item in table]))
    category = np.searchsorted(share, rng.random(num), side="right")

    def column(name: str) -> Floats:
        return np.array([float(getattr(item, name)) for item in table])[category]

    rank = rng.permutation(num) + 1
    popularity = column("visits") * (rank + 5.0) ** -0.7
    city = np.searchsorted(city_share, rng.random(num), side="right")
    return Merchants(
        category=category,
        city=np.where(rng.random(num) < column("online"), ONLINE, city),
        price=column("price") * rng.lognormal(0.0, 0.3, num),
        spread=column("spread"),
        popularity=popularity,
        risk=column("risk") * rng.gamma(2.0, 0.5, num) * popularity**0.6,
    )


def _draw_customer_columns(
    num: int,
    *,
    city_share: Floats,
    city_place: Floats,
    city_choice: Floats,
    merchants: Merchants,
    rng: Rng,
) -> Customers:
    """Draw homes, budgets, rhythms, devices, favourites and trips."""
    city = np.searchsorted(city_share, rng.random(num), side="right")
    place = city_place[city] + rng.normal(0.0, 0.08, (num, 2))  # about 9 km from the centre
    level = rng.lognormal(0.0, 0.45, num)
    favourites = draw_merchants(
        city_choice,
        city=np.repeat(city[:, None], NUM_FAVOURITES, axis=1),
        num_merchants=len(merchants),
        rng=rng,
    )
    evening_or_day = np.where(rng.random(num) < 0.5, 18.5, 12.5)
    return Customers(
        city=city,
        latitude=place[:, 0],
        longitude=place[:, 1],
        card_type=np.searchsorted(_cumulate(np.array(CARD_SHARES)), rng.random(num)),
        level=level,
        typical_amount=level * merchants.price[favourites].mean(axis=1),
        daily_rate=TRANSACTIONS_A_DAY * rng.gamma(3.0, 1.0 / 3.0, num),
        weekend_factor=rng.uniform(0.6, 1.7, num),
        peak_hour=np.where(rng.random(num) < 0.09, 25.0, evening_or_day)
        + rng.normal(0.0, 1.5, num),
        home_ip=np.where(rng.random(num) < 0.2, np.arange(num) // 2 * 2, np.arange(num)),
        num_devices=rng.choice([1, 2, 3], size=num, p=[0.5, 0.38, 0.12]),
        device_lifetime=rng.uniform(90.0, 600.0, (num, 3)),
        device_phase=rng.uniform(0.0, 600.0, (num, 3)),
        favourites=favourites,
        trip_period=rng.uniform(45.0, 200.0, num),
        trip_phase=rng.uniform(0.0, 200.0, num),
        trip_days=rng.uniform(2.0, 12.0, num),
        trip_city=rng.integers(NUM_CITIES, size=(num, NUM_TRIPS)),
    )
