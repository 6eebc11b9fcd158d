"""Window values and the request itself become the fraud features: one function per column.

A function is named like the column it computes and its parameters like the columns it reads, so
``derive`` runs the same definitions over a whole history and over one request: they are written so
that they mean the same for arrays and, compiled, for single numbers (``features.fraud_rows``).
Nothing here knows a store or a framework.

Missing values are NaN, never 0: a mean over no events is unknown. A count over no events is 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

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


def _choose(condition: np.ndarray, yes: Any, no: Any) -> Floats:  # noqa: ANN401 - as np.where
    """``np.where``, which compiled for single numbers would make arrays of them."""
    return np.where(condition, yes, no)


@overload(_choose)
def _choose_one(condition, yes, no):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    return lambda condition, yes, no: yes if condition else no


@register_jitable
def amount_log(amount: Floats) -> Floats:
    """Natural logarithm of one plus the amount."""
    return np.log1p(amount)


@register_jitable
def _day_angle(event_time_us: Integers) -> Floats:
    return (event_time_us % DAY) * (2 * np.pi / DAY)


@register_jitable
def hour_sin(event_time_us: Integers) -> Floats:
    """Sine of the time of day as an angle, so that midnight is no jump."""
    return np.sin(_day_angle(event_time_us))


@register_jitable
def hour_cos(event_time_us: Integers) -> Floats:
    """Cosine of the time of day as an angle."""
    return np.cos(_day_angle(event_time_us))


@register_jitable
def day_of_week(event_time_us: Integers) -> Floats:
    """Day of the week in UTC, Monday 0 to Sunday 6; 1970-01-01 was a Thursday.

    >>> day_of_week(np.array([0, 4 * DAY]))
    array([3., 0.])
    """
    return (event_time_us // DAY + 3) % 7 * 1.0


@register_jitable
def is_weekend(day_of_week: Floats) -> Floats:
    """1 on Saturday and Sunday."""
    return (day_of_week >= 5) * 1.0


@register_jitable
def is_night(event_time_us: Integers) -> Floats:
    """1 between midnight and six, UTC."""
    return (event_time_us % DAY < NIGHT_ENDS_HOUR * HOUR) * 1.0


@register_jitable
def customer_amount_zscore_7d(
    amount: Floats, customer_amount_mean_7d: Floats, customer_amount_std_7d: Floats
) -> Floats:
    """How many standard deviations the amount lies above the customer's week."""
    return _zscore(amount, customer_amount_mean_7d, customer_amount_std_7d)


@register_jitable
def customer_amount_zscore_30d(
    amount: Floats, customer_amount_mean_30d: Floats, customer_amount_std_30d: Floats
) -> Floats:
    """How many standard deviations the amount lies above the customer's month."""
    return _zscore(amount, customer_amount_mean_30d, customer_amount_std_30d)


@register_jitable
def _zscore(amount: Floats, mean: Floats, std: Floats) -> Floats:
    return (amount - mean) / np.maximum(std, MIN_AMOUNT_STD)


@register_jitable
def amount_to_merchant_mean(amount: Floats, merchant_amount_mean_30d: Floats) -> Floats:
    """The amount as a multiple of the merchant's mean; NaN where that is unknown or 0."""
    return amount / _choose(merchant_amount_mean_30d > 0, merchant_amount_mean_30d, np.nan)


@register_jitable
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
    return EARTH_RADIUS_KM * np.arctan2(cross, dot)


@register_jitable
def is_known_device(customer_device_tx_count_30d: Floats) -> Floats:
    """1 if the customer used this device in the last 30 days; NaN without a device."""
    return _flag(customer_device_tx_count_30d > 0, customer_device_tx_count_30d)


@register_jitable
def amount_zscore_by_night(customer_amount_zscore_30d: Floats, is_night: Floats) -> Floats:
    """The month's z-score at night, 0 by day."""
    return customer_amount_zscore_30d * is_night


@register_jitable
def is_new_merchant_and_high_amount(
    customer_merchant_tx_count_30d: Floats, customer_amount_zscore_30d: Floats
) -> Floats:
    """1 if the customer did not pay this merchant in 30 days and the amount stands out."""
    is_new = customer_merchant_tx_count_30d == 0
    return _flag(
        is_new & (customer_amount_zscore_30d > HIGH_AMOUNT_ZSCORE),
        customer_merchant_tx_count_30d + customer_amount_zscore_30d,
    )


@register_jitable
def is_far_and_fast(
    ip_distance_km_from_usual: Floats, customer_seconds_since_previous: Floats
) -> Floats:
    """1 if far from the usual place within an hour of the previous transaction."""
    return _flag(
        (ip_distance_km_from_usual > FAR_KM) & (customer_seconds_since_previous < FAST_SECONDS),
        ip_distance_km_from_usual + customer_seconds_since_previous,
    )


@register_jitable
def _flag(condition: np.ndarray, known: Floats) -> Floats:
    return _choose(np.isnan(known), np.nan, condition * 1.0)


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
