"""Window values and the request itself become the fraud features: one function per column.

A function is named like the column it computes and its parameters like the columns it reads, so
``derive`` runs the same definitions over a whole history and over one request. Nothing here knows
a store or a framework.

Missing values are NaN, never 0: a mean over no events is unknown. A count over no events is 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import numpy as np

from features.fraud_windows import to_unit_vectors
from features.windows import DAY, HOUR, Floats, Integers

NIGHT_ENDS_HOUR = 6
"""Night is from midnight to this hour, UTC."""
MIN_AMOUNT_STD = 1.0
"""Floor of the standard deviation in a z-score, account currency."""
HIGH_AMOUNT_ZSCORE = 2.0
FAR_KM = 100.0
FAST_SECONDS = 3600.0
EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the earth (IUGG)."""


def amount_log(amount: Floats) -> Floats:
    """Natural logarithm of one plus the amount."""
    return np.log1p(amount)


def _day_angle(event_time_us: Integers) -> Floats:
    return np.asarray((event_time_us % DAY) * (2 * np.pi / DAY), dtype=np.float64)


def hour_sin(event_time_us: Integers) -> Floats:
    """Sine of the time of day as an angle, so that midnight is no jump."""
    return np.asarray(np.sin(_day_angle(event_time_us)))


def hour_cos(event_time_us: Integers) -> Floats:
    """Cosine of the time of day as an angle."""
    return np.asarray(np.cos(_day_angle(event_time_us)))


def day_of_week(event_time_us: Integers) -> Floats:
    """Day of the week in UTC, Monday 0 to Sunday 6; 1970-01-01 was a Thursday.

    >>> day_of_week(np.array([0, 4 * DAY]))
    array([3., 0.])
    """
    return np.asarray((event_time_us // DAY + 3) % 7, dtype=np.float64)


def is_weekend(day_of_week: Floats) -> Floats:
    """1 on Saturday and Sunday."""
    return (day_of_week >= 5).astype(np.float64)


def is_night(event_time_us: Integers) -> Floats:
    """1 between midnight and six, UTC."""
    return (event_time_us % DAY < NIGHT_ENDS_HOUR * HOUR).astype(np.float64)


def customer_amount_zscore_7d(
    amount: Floats, customer_amount_mean_7d: Floats, customer_amount_std_7d: Floats
) -> Floats:
    """How many standard deviations the amount lies above the customer's week."""
    return _zscore(amount, customer_amount_mean_7d, customer_amount_std_7d)


def customer_amount_zscore_30d(
    amount: Floats, customer_amount_mean_30d: Floats, customer_amount_std_30d: Floats
) -> Floats:
    """How many standard deviations the amount lies above the customer's month."""
    return _zscore(amount, customer_amount_mean_30d, customer_amount_std_30d)


def _zscore(amount: Floats, mean: Floats, std: Floats) -> Floats:
    return np.asarray((amount - mean) / np.maximum(std, MIN_AMOUNT_STD))


def amount_to_merchant_mean(amount: Floats, merchant_amount_mean_30d: Floats) -> Floats:
    """The amount as a multiple of the merchant's mean; NaN where that is unknown or 0."""
    known = merchant_amount_mean_30d > 0
    unknown = np.full(np.shape(amount), np.nan)
    return np.asarray(np.divide(amount, merchant_amount_mean_30d, out=unknown, where=known))


def ip_distance_km_from_usual(
    latitude: Floats,
    longitude: Floats,
    customer_usual_x: Floats,
    customer_usual_y: Floats,
    customer_usual_z: Floats,
) -> Floats:
    """Great-circle distance from where the customer usually pays, km; NaN if either is unknown.

    Source:
        Angle between two vectors as atan2(|a x b|, a . b), well conditioned at every distance
        (Kahan, "How futile are mindless assessments of roundoff", 2006); mean earth radius.
    """
    x, y, z = to_unit_vectors(latitude, longitude)
    dot = x * customer_usual_x + y * customer_usual_y + z * customer_usual_z
    cross = np.sqrt(
        (y * customer_usual_z - z * customer_usual_y) ** 2
        + (z * customer_usual_x - x * customer_usual_z) ** 2
        + (x * customer_usual_y - y * customer_usual_x) ** 2
    )
    return np.asarray(EARTH_RADIUS_KM * np.arctan2(cross, dot))


def is_known_device(customer_device_tx_count_30d: Floats) -> Floats:
    """1 if the customer used this device in the last 30 days; NaN without a device."""
    return _flag(customer_device_tx_count_30d > 0, known=customer_device_tx_count_30d)


def amount_zscore_by_night(customer_amount_zscore_30d: Floats, is_night: Floats) -> Floats:
    """The month's z-score at night, 0 by day."""
    return customer_amount_zscore_30d * is_night


def is_new_merchant_and_high_amount(
    customer_merchant_tx_count_30d: Floats, customer_amount_zscore_30d: Floats
) -> Floats:
    """1 if the customer did not pay this merchant in 30 days and the amount stands out."""
    is_new = customer_merchant_tx_count_30d == 0
    return _flag(
        is_new & (customer_amount_zscore_30d > HIGH_AMOUNT_ZSCORE),
        known=customer_merchant_tx_count_30d + customer_amount_zscore_30d,
    )


def is_far_and_fast(
    ip_distance_km_from_usual: Floats, customer_seconds_since_previous: Floats
) -> Floats:
    """1 if far from the usual place within an hour of the previous transaction."""
    return _flag(
        (ip_distance_km_from_usual > FAR_KM) & (customer_seconds_since_previous < FAST_SECONDS),
        known=ip_distance_km_from_usual + customer_seconds_since_previous,
    )


def _flag(condition: np.ndarray, *, known: Floats) -> Floats:
    return np.where(np.isnan(known), np.nan, np.asarray(condition, dtype=np.float64))


DERIVED: dict[str, Callable[..., Floats]] = {
    function.__name__: function
    for function in (
        amount_log,
        hour_sin,
        hour_cos,
        day_of_week,
        is_weekend,
        is_night,
        customer_amount_zscore_7d,
        customer_amount_zscore_30d,
        amount_to_merchant_mean,
        ip_distance_km_from_usual,
        is_known_device,
        amount_zscore_by_night,
        is_new_merchant_and_high_amount,
        is_far_and_fast,
    )
}
"""Features computed from other columns, each after those it reads."""

INPUTS = {name: tuple(inspect.signature(rule).parameters) for name, rule in DERIVED.items()}
"""The columns each derived feature reads."""


def derive(columns: Mapping[str, np.ndarray]) -> dict[str, Floats]:
    """Compute every derived feature whose inputs are at hand.

    Args:
        columns: Window values, ``amount`` (currency), ``event_time_us`` (microseconds),
            ``latitude`` and ``longitude`` (degrees), each of shape ``(rows,)``.

    Returns:
        Derived features of shape ``(rows,)``; those that lack an input are left out.

    >>> sorted(derive({"amount": np.array([0.0])}))
    ['amount_log']
    """
    known: dict[str, np.ndarray] = dict(columns)
    for name, rule in DERIVED.items():
        if all(parameter in known for parameter in INPUTS[name]):
            known[name] = rule(*(known[parameter] for parameter in INPUTS[name]))
    return {name: known[name] for name in DERIVED if name in known}
