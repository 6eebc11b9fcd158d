"""The columns a set of transactions has decide which features it allows, and in which order.

Invariant: what is selected is what a model is trained and served with; a feature that lacks a
column is dropped with the reason, never filled in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.fraud_columns import TRANSACTION_COLUMNS
from features.fraud import INPUTS

NEEDS: dict[str, tuple[str, ...]] = {
    "amount_log": (),
    "hour_sin": (),
    "hour_cos": (),
    "day_of_week": (),
    "is_weekend": (),
    "is_night": (),
    "customer_tx_count_1h": (),
    "customer_tx_count_24h": (),
    "customer_tx_count_7d": (),
    "customer_amount_mean_7d": (),
    "customer_amount_mean_30d": (),
    "customer_amount_zscore_7d": (),
    "customer_amount_zscore_30d": (),
    "customer_amount_max_30d": (),
    "customer_unique_merchants_24h": ("merchant_id",),
    "customer_unique_merchants_7d": ("merchant_id",),
    "customer_seconds_since_previous": (),
    "merchant_fraud_rate": ("merchant_id",),
    "merchant_category_risk": ("merchant_category",),
    "merchant_amount_mean_30d": ("merchant_id",),
    "amount_to_merchant_mean": ("merchant_id",),
    "ip_distance_km_from_usual": ("latitude", "longitude"),
    "ip_unique_customers_24h": ("ip",),
    "is_known_device": ("device_id",),
    "amount_zscore_by_night": (),
    "is_new_merchant_and_high_amount": ("merchant_id",),
    "is_far_and_fast": ("latitude", "longitude"),
    "card_type": ("card_type",),
}
"""Every feature, in the model's order, and the optional columns it cannot do without."""


_INTERNAL_NAMES = {
    *("score", "event_timestamp", "merchant_code", "device_code", "ip_code", "category_code"),
    *(name for names in INPUTS.values() for name in names),
}
RESERVED_NAMES = (_INTERNAL_NAMES | set(NEEDS)) - set(TRANSACTION_COLUMNS)
"""What no column outside the contract may be called: features, their inputs, the model's answer."""


@dataclass(frozen=True)
class FeatureSet:
    """The features a set of transactions allows.

    Attributes:
        names: Model inputs in order: numeric ones first, then categorical ones.
        categorical: Those of ``names`` that hold strings.
        dropped: Features that cannot be computed, with the reason.
    """

    names: tuple[str, ...]
    categorical: tuple[str, ...]
    dropped: dict[str, str]

    @property
    def numeric(self) -> tuple[str, ...]:
        """Those of ``names`` that hold numbers."""
        return tuple(name for name in self.names if name not in self.categorical)

    @property
    def computed(self) -> tuple[str, ...]:
        """Those of ``names`` that are computed here rather than passed through."""
        return tuple(name for name in self.numeric if name in NEEDS)


def select_features(transactions: pd.DataFrame) -> FeatureSet:
    """Choose the features that a set of transactions allows; only columns and dtypes are read.

    Args:
        transactions: Columns outside the contract pass through: numeric dtypes as numbers, all
            others as categories.

    Returns:
        Names in the model's order, and what had to be dropped.

    Raises:
        ValueError: If a column outside the contract has a name the features use themselves.

    >>> chosen = select_features(pd.DataFrame({"amount": [1.0], "age_of_account": [30.0]}))
    >>> chosen.names[-1], chosen.dropped["is_known_device"]
    ('age_of_account', 'needs column device_id')
    """
    dtypes = {str(name): dtype for name, dtype in transactions.dtypes.items()}
    taken = sorted(set(dtypes) & RESERVED_NAMES)
    if taken:
        raise ValueError(
            f"column {', '.join(taken)} has a name that the features use themselves;"
            " rename it in your file, or drop it in the mapping"
        )
    missing = {
        name: [column for column in needed if column not in dtypes]
        for name, needed in NEEDS.items()
    }
    extra = [name for name in dtypes if name not in TRANSACTION_COLUMNS]
    extra_numeric = [name for name in extra if _is_numeric(dtypes[name])]
    ours = [name for name, lacking in missing.items() if not lacking]
    categorical = [name for name in ours if name == "card_type"]
    categorical += [name for name in extra if name not in extra_numeric]
    numeric = [name for name in ours if name not in categorical] + extra_numeric
    return FeatureSet(
        names=(*numeric, *categorical),
        categorical=tuple(categorical),
        dropped={
            name: f"needs column {' and '.join(lacking)}"
            for name, lacking in missing.items()
            if lacking
        },
    )


def _is_numeric(dtype: object) -> bool:
    return isinstance(dtype, np.dtype) and np.issubdtype(dtype, np.number)
