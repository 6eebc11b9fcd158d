"""Scored batches become an Arrow record batch, and record batches two frames.

Columns instead of rows: a record costs the interpreter next to nothing where numbers are joined
by numpy and words are listed once, by code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from features.fraud_selection import FeatureSet
    from serving.prediction_log import ScoredBatch
    from training.encoding import Floats, Integers

TIME = pa.timestamp("us", tz="UTC")
REPEATED = pa.dictionary(pa.int32(), pa.string())
FEATURES = "features"
OUTCOME_SHARE = "outcome_share"
COLUMNS = {
    "prediction_time": TIME,
    "transaction_id": pa.string(),
    "event_time": TIME,
    "amount": pa.float64(),
    "model_version": REPEATED,
    "arm": REPEATED,
    "score": pa.float64(),
    "decision": REPEATED,
    "degraded_reason": REPEATED,
    "latency_ms": pa.float64(),
    OUTCOME_SHARE: pa.float64(),
}
"""The columns of a record; after them comes the struct ``features``, a field per feature."""
EARLIER_COLUMNS = [name for name in COLUMNS if name != OUTCOME_SHARE]
"""Those of a release that let every outcome be seen, or knew nothing of it."""


def build_schema(feature_set: FeatureSet) -> pa.Schema:
    """Build the schema of the records of a feature set."""
    numbers = [(name, pa.float64()) for name in feature_set.numeric]
    strings = [(name, REPEATED) for name in feature_set.categorical]
    return pa.schema([*COLUMNS.items(), (FEATURES, pa.struct(numbers + strings))])


def build_records(batches: Sequence[ScoredBatch], *, schema: pa.Schema) -> pa.RecordBatch:
    """Put batches one after another into one record batch, column by column.

    Args:
        batches: At least one.
        schema: From ``build_schema``.

    Returns:
        One row per row of the batches, in their order.

    Raises:
        ValueError: If a batch's columns differ in length or do not fit the schema.
    """
    rows = np.array([len(batch.transaction_ids) for batch in batches])

    def repeat(values: list[str]) -> pa.Array:
        words = pa.array(values).dictionary_encode()
        codes = np.repeat(words.indices.to_numpy(), rows)
        return pa.DictionaryArray.from_arrays(codes, words.dictionary)

    def chain_words(columns: Iterator[Sequence[str | None]]) -> pa.Array:
        return pa.array(list(chain.from_iterable(columns)), pa.string()).dictionary_encode()

    def join_times(values: Sequence[Integers]) -> pa.Array:
        return pa.array(np.concatenate(values)).view(TIME)

    times = np.array([batch.prediction_time_us for batch in batches])
    numbers = np.ascontiguousarray(np.concatenate([batch.features for batch in batches]).T)
    num_categorical = schema.field(FEATURES).type.num_fields - len(numbers)
    features = [
        *map(pa.array, numbers),  # no copy: each is a contiguous row of the transposed matrix
        *(
            chain_words(batch.categories[position] for batch in batches)
            for position in range(num_categorical)
        ),
    ]
    columns = [
        pa.array(np.repeat(times, rows)).view(TIME),
        pa.array(list(chain.from_iterable(batch.transaction_ids for batch in batches))),
        join_times([batch.event_times_us for batch in batches]),
        pa.array(np.concatenate([batch.amounts for batch in batches])),
        repeat([batch.model_version for batch in batches]),
        repeat([batch.arm for batch in batches]),
        pa.array(np.concatenate([batch.scores for batch in batches])),
        chain_words(batch.decisions for batch in batches),
        chain_words(batch.degraded_reasons for batch in batches),
        pa.array(np.concatenate([batch.latency_ms for batch in batches])),
        pa.array(np.concatenate([_get_outcome_shares(batch) for batch in batches])),
        pa.StructArray.from_arrays(features, fields=list(schema.field(FEATURES).type)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _get_outcome_shares(batch: ScoredBatch) -> Floats:
    shares = batch.outcome_shares
    return np.ones(len(batch.transaction_ids)) if shares is None else shares


def build_frames(batches: Sequence[pa.RecordBatch]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join record batches, whose features may differ, and sort them by ``prediction_time``.

    Returns:
        ``(predictions, features)`` as ``serving.prediction_log.load_predictions`` says.
    """
    predictions = pd.DataFrame({name: _join_column(batches, name) for name in COLUMNS})
    order = np.argsort(predictions["prediction_time"].to_numpy(), kind="stable")
    features = _join_features(batches)
    return (
        predictions.iloc[order].reset_index(drop=True),
        features.iloc[order].reset_index(drop=True),
    )


def is_record_schema(schema: pa.Schema) -> bool:
    """Tell whether a schema is one of ``build_schema``, now or before, whatever the features."""
    names = schema.names[:-1]
    return (
        schema.names[-1:] == [FEATURES]
        and names in (list(COLUMNS), EARLIER_COLUMNS)
        and all(schema.field(name).type == COLUMNS[name] for name in names)
    )


def _join_column(batches: Sequence[pa.RecordBatch], name: str) -> pd.Series:
    """Join a column of all batches: UTC times, numbers, or strings and None."""
    values = [
        _to_numpy(batch[name]) if name in batch.schema.names else np.ones(len(batch))
        for batch in batches
    ]
    if COLUMNS[name] == TIME:
        times = np.concatenate([np.array([], "datetime64[us]"), *values])
        return pd.Series(times).dt.tz_localize("UTC")
    empty = np.array([], np.float64 if COLUMNS[name] == pa.float64() else object)
    return pd.Series(np.concatenate([empty, *values]))


def _join_features(batches: Sequence[pa.RecordBatch]) -> pd.DataFrame:
    """Join the features of all batches by name; batches need not have the same."""
    parts = [
        {field.name: batch[FEATURES].field(i) for i, field in enumerate(batch[FEATURES].type)}
        for batch in batches
    ]
    rows = sum(len(batch) for batch in batches)
    columns = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [
            _to_numpy(part[name]) if name in part else np.full(len(batch), None)
            for part, batch in zip(parts, batches, strict=True)
        ]
        is_text = any(
            isinstance(value, str) for part in values for value in part if part.dtype == object
        )
        columns[name] = np.concatenate(values).astype(object if is_text else np.float64)
    return pd.DataFrame(columns, index=range(rows))


def _to_numpy(values: pa.Array) -> np.ndarray:
    """Return numbers, times without their zone, or strings and None as objects."""
    return np.asarray(values.to_numpy(zero_copy_only=False))
