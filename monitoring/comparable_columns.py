"""Raw served columns become columns two samples can be compared on: finite floats, few categories.

Nothing here raises on a bad value: text among numbers and infinities become missing, and the
data-quality gate is what complains about them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_CATEGORIES = 30
"""Categories told apart; rarer ones, and those the reference lacks, are taken together."""
OTHER_CATEGORY = "(other)"
MAX_LISTED_VALUES = 20
"""A number with more distinct values than this in the reference is compared by its quantiles. Flags
and weekdays keep their values: a step of theirs is a change of share as it is."""


def read_numbers(features: pd.DataFrame, numeric: Sequence[str]) -> pd.DataFrame:
    """Turn columns into float64; what is not a number becomes NaN.

    >>> features = pd.DataFrame({"amount_log": [1, "x", None]})
    >>> read_numbers(features, ["amount_log"])["amount_log"].tolist()
    [1.0, nan, nan]
    """
    return pd.DataFrame(
        {
            name: pd.to_numeric(features[name], errors="coerce").astype(np.float64)
            for name in numeric
        },
        index=features.index,
    )


def find_finite(numbers: pd.Series) -> Floats:
    """Return the values that are neither missing nor infinite, as float64, in order."""
    values: Floats = numbers.to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


def make_comparable(
    reference: pd.DataFrame, *, current: pd.DataFrame, categorical: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give a reference and a window the same types, on the reference's own scale.

    Amounts, counts and distances have tails so heavy that a few giants decide any distance between
    their values. So a value becomes the share of the reference below it: a shift of a tenth of the
    reference counts as much at the median as in the tail, whatever the unit.

    Args:
        reference: Columns to compare; categorical ones hold strings, all others numbers.
        current: The same columns, and values of any kind.
        categorical: Columns that hold strings.

    Returns:
        ``(reference, current)``, rows numbered from 0 in the same order: float64, in [0, 1] where
        the reference has more than ``MAX_LISTED_VALUES`` values; and at most ``MAX_CATEGORIES``
        categories and the rest.
    """
    numeric = [str(name) for name in reference if name not in categorical]
    before, now = (
        read_numbers(rows, numeric).replace([np.inf, -np.inf], np.nan)
        for rows in (reference, current)
    )
    for name in numeric:
        known = np.sort(find_finite(before[name]))
        if np.unique(known).size > MAX_LISTED_VALUES:
            before[name], now[name] = (
                find_quantiles(rows[name].to_numpy(), among=known) for rows in (before, now)
            )
    for name in (str(name) for name in reference if name in categorical):
        kept = set(reference[name].value_counts().index[:MAX_CATEGORIES])
        before[name], now[name] = (
            column.where(column.isna() | column.isin(kept), OTHER_CATEGORY).astype(object)
            for column in (reference[name], current[name])
        )
    return before.reset_index(drop=True), now.reset_index(drop=True)


def find_quantiles(values: Floats, *, among: Floats) -> Floats:
    """Find the share of known values below each value, those equal to it counting one half.

    Args:
        values: Of any size; NaN stays NaN. Shape ``(rows,)``.
        among: Known values, ascending, at least one.

    >>> find_quantiles(np.array([0.0, 2.0, 9.0]), among=np.array([1.0, 2.0, 2.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    below, up_to = (np.searchsorted(among, values, side=side) for side in ("left", "right"))
    return np.where(np.isnan(values), np.nan, (below + up_to) / (2.0 * among.size))
