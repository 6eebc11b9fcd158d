"""Events grouped by entity become the fraud window values, strictly before each query.

One function per kind of entity; ``features.fraud_history`` calls it with a whole history and
``features.fraud_state`` with the events of one request, so the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba.extending import register_jitable

from features.windows import (
    DAY,
    HOUR,
    Bounds,
    Floats,
    Integers,
    count_windows,
    find_bounds,
    measure_seconds_since_last,
    slide_matches,
    slide_moments,
    sum_windows,
)

PRIOR_FRAUD_RATE = 0.01
"""Share of fraud a merchant or category without labels is taken for."""
PRIOR_STRENGTH = 50.0
"""How many labels the prior weighs as much as."""
RETENTION = {"customer": 30 * DAY, "merchant": 30 * DAY, "ip": DAY}
"""How far back each entity's longest window reaches, microseconds."""
RISK_WINDOW_DAYS = 30
"""Fraud rates count the labels that arrived in this many whole UTC days before the day asked."""


@dataclass(frozen=True)
class Grouped:
    """Events and queries of the same entities, grouped and in time order within each.

    Attributes:
        event_times: Microseconds. Shape ``(events,)``.
        event_starts: Group borders. Shape ``(groups + 1,)``.
        query_times: Microseconds. Shape ``(queries,)``.
        query_starts: Group borders. Shape ``(groups + 1,)``.
    """

    event_times: Integers
    event_starts: Integers
    query_times: Integers
    query_starts: Integers

    def find_bounds(self, length: int) -> Bounds:
        """Find the events each query's window of ``length`` microseconds covers."""
        return find_bounds(
            self.event_times,
            self.event_starts,
            self.query_times,
            self.query_starts,
            length=length,
        )


def aggregate_customer_spend(groups: Grouped, amounts: Floats) -> dict[str, Floats]:
    """Count and summarise what each customer spent before each query.

    Args:
        groups: Transactions grouped by customer.
        amounts: Account currency. Shape ``(events,)``.

    Returns:
        One value per query for each ``customer_tx_count_*``, ``customer_amount_*`` and
        ``customer_seconds_since_previous``.
    """
    week, month = groups.find_bounds(7 * DAY), groups.find_bounds(30 * DAY)
    spend_7d, spend_30d = slide_moments(amounts, week), slide_moments(amounts, month)
    return {
        "customer_tx_count_1h": count_windows(groups.find_bounds(HOUR)),
        "customer_tx_count_24h": count_windows(groups.find_bounds(DAY)),
        "customer_tx_count_7d": count_windows(week),
        "customer_amount_mean_7d": spend_7d.mean,
        "customer_amount_std_7d": spend_7d.std,
        "customer_amount_mean_30d": spend_30d.mean,
        "customer_amount_std_30d": spend_30d.std,
        "customer_amount_max_30d": spend_30d.max,
        "customer_seconds_since_previous": measure_seconds_since_last(
            groups.event_times, groups.query_times, month
        ),
    }


def aggregate_customer_merchants(
    groups: Grouped, merchants: Integers, query_merchants: Integers, *, num_codes: int
) -> dict[str, Floats]:
    """Count the merchants each customer used, and how often the one being paid.

    Args:
        groups: Transactions with a merchant, grouped by customer.
        merchants: Merchant code per event, in ``[0, num_codes)``.
        query_merchants: Merchant code per query, -1 for none.
        num_codes: How many merchant codes there are.

    Returns:
        ``customer_unique_merchants_{24h,7d}`` and ``customer_merchant_tx_count_30d`` per query.
    """
    counts = {
        days: slide_matches(
            merchants, groups.find_bounds(days * DAY), query_merchants, num_codes=num_codes
        )
        for days in (1, 7, 30)
    }
    return {
        "customer_unique_merchants_24h": counts[1].distinct,
        "customer_unique_merchants_7d": counts[7].distinct,
        "customer_merchant_tx_count_30d": counts[30].matching,
    }


def aggregate_customer_devices(
    groups: Grouped, devices: Integers, query_devices: Integers, *, num_codes: int
) -> dict[str, Floats]:
    """Count how often each customer used the device now asked about; see the merchants' twin."""
    matches = slide_matches(
        devices, groups.find_bounds(30 * DAY), query_devices, num_codes=num_codes
    )
    return {"customer_device_tx_count_30d": matches.matching}


def aggregate_customer_places(
    groups: Grouped, latitudes: Floats, longitudes: Floats
) -> dict[str, Floats]:
    """Average where each customer paid, as a vector, so that the date line is no border.

    Args:
        groups: Transactions with a place, grouped by customer.
        latitudes: Degrees, [-90, 90]. Shape ``(events,)``.
        longitudes: Degrees, [-180, 180]. Shape ``(events,)``.

    Returns:
        Components ``customer_usual_{x,y,z}`` of the mean unit vector; NaN where there is no event.
    """
    month = groups.find_bounds(30 * DAY)
    x, y, z = to_unit_vectors(latitudes, longitudes)
    return {
        "customer_usual_x": slide_moments(x, month).mean,
        "customer_usual_y": slide_moments(y, month).mean,
        "customer_usual_z": slide_moments(z, month).mean,
    }


def aggregate_merchant_amounts(groups: Grouped, amounts: Floats) -> dict[str, Floats]:
    """Average what was paid at each merchant in the 30 days before each query."""
    return {"merchant_amount_mean_30d": slide_moments(amounts, groups.find_bounds(30 * DAY)).mean}


def aggregate_ip_customers(
    groups: Grouped, customers: Integers, *, num_codes: int
) -> dict[str, Floats]:
    """Count the customers seen behind each address in the 24 hours before each query."""
    nobody = np.full(groups.query_times.size, -1)
    matches = slide_matches(customers, groups.find_bounds(DAY), nobody, num_codes=num_codes)
    return {"ip_unique_customers_24h": matches.distinct}


def aggregate_label_days(groups: Grouped, num_labels: Integers, num_frauds: Integers) -> Floats:
    """Estimate a share of fraud from the labels that had arrived, smoothed towards the prior.

    Args:
        groups: One event per entity and UTC day on which labels arrived; its time is the day's
            first instant. Queries are at any time; they see whole days before their own.
        num_labels: Labels that arrived that day. Shape ``(events,)``.
        num_frauds: How many of them said fraud. Shape ``(events,)``.

    Returns:
        A share per query; exactly ``PRIOR_FRAUD_RATE`` where no label had arrived.

    Source:
        Posterior mean of a Beta(prior rate x strength, (1 - prior rate) x strength) distribution.
    """
    today = groups.query_times - groups.query_times % DAY
    days = Grouped(groups.event_times, groups.event_starts, today, groups.query_starts)
    bounds = days.find_bounds(RISK_WINDOW_DAYS * DAY)
    return smooth_fraud_rate(sum_windows(num_frauds, bounds), sum_windows(num_labels, bounds))


@register_jitable
def smooth_fraud_rate(num_frauds: Floats, num_labels: Floats) -> Floats:
    """Pull a share of fraud towards the prior; see ``aggregate_label_days``."""
    return (num_frauds + PRIOR_FRAUD_RATE * PRIOR_STRENGTH) / (num_labels + PRIOR_STRENGTH)


@register_jitable
def to_unit_vectors(latitudes: Floats, longitudes: Floats) -> tuple[Floats, Floats, Floats]:
    """Turn degrees into the points x, y, z of the unit sphere."""
    phi, theta = np.radians(latitudes), np.radians(longitudes)
    return np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)
