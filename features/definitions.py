"""The columns of a problem's transactions become every Feast object: entities, views, services.

Two services give the same features by the same names. ``fraud_training`` joins precomputed window
tables point in time; ``fraud_serving`` reads each entity's recent events from the online store and
derives the windows at the request's time. ``tests/parity`` holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    RequestSource,
    ValueType,
)
from feast.transformation.pandas_transformation import PandasTransformation
from feast.transformation.python_transformation import PythonTransformation
from feast.types import Bytes, Float64, Int64, String
from pandas.api.types import is_numeric_dtype

from features.fraud import derive
from features.fraud_online import REQUEST_CODES, compute_online
from features.fraud_selection import NEEDS, FeatureSet
from features.fraud_state import STATE_KEYS

TRAINING_SERVICE = "fraud_training"
SERVING_SERVICE = "fraud_serving"
OFFLINE_FOLDER = "offline"
"""Where the parquet tables stand, relative to the feature store's folder."""

HISTORY_VIEWS: dict[str, tuple[str, ...]] = {
    "customer_windows": ("customer_id",),
    "customer_merchant_windows": ("customer_id", "merchant_id"),
    "customer_device_windows": ("customer_id", "device_id"),
    "merchant_windows": ("merchant_id",),
    "category_windows": ("merchant_category",),
    "ip_windows": ("ip",),
}
"""Join keys of each precomputed table of ``features.fraud_history``."""


def build_entities(columns: Iterable[str]) -> dict[str, Entity]:
    """Describe the entities a set of transaction columns has, by join key."""
    keys = sorted({key for view in HISTORY_VIEWS.values() for key in view} & set(columns))
    return {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
        for key in keys
    }


def build_history_views(
    tables: Mapping[str, Iterable[str]], entities: dict[str, Entity]
) -> list[FeatureView]:
    """Describe the precomputed window tables.

    Args:
        tables: Value columns of each table, by the table's name.
        entities: From ``build_entities``.
    """
    return [
        FeatureView(
            name=table,
            entities=[entities[key] for key in HISTORY_VIEWS[table]],
            schema=[Field(name=key, dtype=String) for key in HISTORY_VIEWS[table]]
            + [Field(name=column, dtype=Float64) for column in columns],
            source=_parquet(table),
            online=False,
        )
        for table, columns in tables.items()
    ]


def build_state_views(entities: dict[str, Entity]) -> list[FeatureView]:
    """Describe the states that the online store holds, one bytes field per entity."""
    return [
        FeatureView(
            name=f"{state}_state",
            entities=[entities[key]],
            schema=[Field(name=key, dtype=String), Field(name=state, dtype=Bytes)],
            source=_parquet(f"{state}_state"),
            online=True,
        )
        for state, key in STATE_KEYS.items()
        if key in entities
    ]


def build_services(
    features: FeatureSet,
    columns: Iterable[str],
    history_views: list[FeatureView],
    state_views: list[FeatureView],
) -> list[OnDemandFeatureView | FeatureService]:
    """Describe the derived features, in history and at request time, and the two services."""
    has_columns = set(columns)
    places = [name for name in ("latitude", "longitude") if name in has_columns]
    codes = [code for column, code in REQUEST_CODES.items() if column in has_columns]
    base = [Field(name="amount", dtype=Float64), Field(name="event_time_us", dtype=Int64)]
    base += [Field(name=name, dtype=Float64) for name in places]
    direct = {field.name for view in history_views for field in view.features}
    in_history = OnDemandFeatureView(
        name="fraud_derived",
        sources=[*history_views, RequestSource(name="fraud_row", schema=base)],
        schema=_fields(name for name in features.computed if name not in direct),
        feature_transformation=PandasTransformation(derive_history, _import_line(derive_history)),
        mode="pandas",
    )
    request = RequestSource(
        name="fraud_request", schema=base + [Field(name=code, dtype=Int64) for code in codes]
    )
    online = OnDemandFeatureView(
        name="fraud_online",
        sources=[*state_views, request],
        schema=_fields(features.computed),
        feature_transformation=_StateTransformation(derive_online, _import_line(derive_online)),
        mode="python",
    )
    joined: list[FeatureView | OnDemandFeatureView] = [
        view[kept]
        for view in history_views
        if (kept := [field.name for field in view.features if field.name in features.computed])
    ]
    return [
        in_history,
        online,
        FeatureService(name=TRAINING_SERVICE, features=[*joined, in_history]),
        FeatureService(name=SERVING_SERVICE, features=[online]),
    ]


def derive_history(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute the derived features of joined history rows (a Feast transformation)."""
    numbers = [name for name, dtype in rows.dtypes.items() if is_numeric_dtype(dtype)]
    columns = derive({str(name): rows[name].to_numpy() for name in numbers})
    return pd.DataFrame(columns, index=rows.index, copy=False)


def derive_online(inputs: dict[str, list[object]]) -> dict[str, list[float]]:
    """Compute all features of a batch of requests from their states (a Feast transformation)."""
    states = {name: inputs[name] for name in STATE_KEYS if name in inputs}
    requests = {
        name: np.array(values, np.int64 if name in _INTEGERS else np.float64)
        for name, values in inputs.items()
        if name in _INTEGERS or name in _FLOATS
    }
    columns = compute_online(states, requests)  # type: ignore[arg-type]
    return {name: values.tolist() for name, values in columns.items() if name not in requests}


_INTEGERS = frozenset({"event_time_us", *REQUEST_CODES.values()})
_FLOATS = frozenset({"amount", "latitude", "longitude"})


class _StateTransformation(PythonTransformation):
    """A transformation of states: Feast infers by trying sample bytes, which are no state."""

    def infer_features(
        self,
        random_input: dict[str, object],  # noqa: ARG002
        singleton: bool | None = False,  # noqa: ARG002
    ) -> list[Field]:
        return _fields(NEEDS)


def _import_line(function: Callable[..., object]) -> str:
    """Return source that yields the function: Feast runs it rather than the pickled bytes."""
    return f"from {function.__module__} import {function.__name__}\n"


def _fields(names: Iterable[str]) -> list[Field]:
    return [Field(name=name, dtype=Float64) for name in names]


def _parquet(table: str) -> FileSource:
    path = f"{OFFLINE_FOLDER}/{table}.parquet"
    return FileSource(name=f"{table}_source", path=path, timestamp_field="event_time")
