"""Parquet tables become point-in-time joined training rows.

A Feast offline store. Feast's own embedded stores join on ``feature time <= row time`` and keep the
latest match, which forms every pair first; here each row looks its one match up. The result is the
same (``tests/parity/test_offline_store.py`` holds it to Feast's ``file`` store), but for rows with
no earlier value, which the ``file`` store drops; here they stay, with NULL.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureView, OnDemandFeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import (
    OfflineStore,
    RetrievalJob,
    RetrievalMetadata,
)
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from features.point_in_time import FOREVER, code_entities, find_latest
from features.windows import Integers


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """Settings of the store; Feast finds this class by its name."""

    type: Literal["features.offline_store.AsofOfflineStore"] = (
        "features.offline_store.AsofOfflineStore"
    )


class ArrowRetrievalJob(RetrievalJob):
    """A query that has yet to run and whose result is an Arrow table."""

    def __init__(
        self,
        query: Callable[[], pa.Table],
        *,
        on_demand_feature_views: list[OnDemandFeatureView],
        full_feature_names: bool,
        metadata: RetrievalMetadata | None,
    ) -> None:
        self._query = query
        self._on_demand_feature_views = on_demand_feature_views
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named ``view__feature``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Transformations that Feast runs on the joined rows."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        rows: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return rows

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return self._query()


class AsofOfflineStore(OfflineStore):
    """Feast's retrieval methods over parquet files.

    Of an entity's rows at one instant the one created last counts, or the table's last one.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_: Any,  # noqa: ANN401
    ) -> RetrievalJob:
        """Join each row with every view's latest values at or before the row's time.

        Args:
            config: Feast's; its ``repo_path`` resolves relative sources.
            feature_views: Views to join, each on a parquet source.
            feature_refs: ``view:feature`` for each feature wanted.
            entity_df: Rows with the join keys and one UTC time column.
            registry: Feast's, for on-demand views.
            project: Feast's.
            full_feature_names: Whether to name columns ``view__feature``.

        Returns:
            A job whose table has the given rows, in the given order, with the features appended;
            NULL where a view has no value for a row.

        Raises:
            ValueError: If ``entity_df`` is not a frame; from the job, if a row has no time.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError("get_historical_features needs entity rows as a pandas DataFrame")
        time_column = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        rows = pa.Table.from_pandas(entity_df, preserve_index=False)

        def query() -> pa.Table:
            joined = rows
            for view in feature_views:
                names = [ref.split(":")[1] for ref in feature_refs if _is_of(ref, view)]
                columns = _join(rows, view, names, time_column, config.repo_path)
                for name, column in zip(names, columns.columns, strict=True):
                    shown = f"{view.projection.name_to_use()}__{name}"
                    joined = joined.append_column(shown if full_feature_names else name, column)
            return joined

        return ArrowRetrievalJob(
            query,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
                feature_refs, project, registry
            ),
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entity_df if name != time_column],
                min_event_timestamp=entity_df[time_column].min(),
                max_event_timestamp=entity_df[time_column].max(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Read each entity's latest row between two instants: what materialising needs."""
        times = [name for name in (timestamp_field, created_timestamp_column) if name]
        columns = _quote([*join_key_columns, *feature_name_columns, *times])
        newest_first = ", ".join(f"{_quote([name])} DESC NULLS LAST" for name in times)
        latest = (
            f"QUALIFY row_number() OVER (PARTITION BY {_quote(join_key_columns)}"
            f" ORDER BY {newest_first}) = 1"
        )
        return _read(config, data_source, columns, timestamp_field, start_date, end_date, latest)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: FileSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Read all rows between two instants."""
        times = [name for name in (timestamp_field, created_timestamp_column) if name]
        columns = _quote([*join_key_columns, *feature_name_columns, *times])
        return _read(config, data_source, columns, timestamp_field, start_date, end_date, "")


def _is_of(feature_ref: str, view: FeatureView) -> bool:
    name: str = view.projection.name_to_use()
    return feature_ref.split(":")[0] == name


def _join(
    rows: pa.Table, view: FeatureView, names: list[str], time_column: str, repo_path: Path | None
) -> pa.Table:
    """Return the named features of one view for each row, in the rows' order."""
    source = view.batch_source
    keys = {
        column.name: view.projection.join_key_map.get(column.name, column.name)
        for column in view.entity_columns
    }
    created = [source.created_timestamp_column] if source.created_timestamp_column else []
    table = pq.read_table(
        _resolve(source, repo_path),
        columns=list(dict.fromkeys([*keys, source.timestamp_field, *created, *names])),
        read_dictionary=list(keys),
    )
    for name in created:  # stable, so that of one instant's rows the one created last is last
        table = table.take(pc.sort_indices(table[name], null_placement="at_start"))
    matches = find_latest(
        code_entities([table[key] for key in keys], [rows[key] for key in keys.values()]),
        _to_nanoseconds(table[source.timestamp_field]),
        _to_nanoseconds(rows[time_column]),
        max_age=view.ttl // timedelta(microseconds=1) * 1000 if view.ttl else FOREVER,
    )
    return table.select(names).combine_chunks().take(pa.array(matches, mask=matches < 0))


def _to_nanoseconds(times: pa.ChunkedArray) -> Integers:
    """Turn instants of any unit into nanoseconds since 1970, UTC; no zone means UTC."""
    if times.null_count:
        raise ValueError("a point-in-time join needs every row's time; drop the rows without one")
    return np.asarray(times.cast(pa.timestamp("ns", times.type.tz)).cast(pa.int64()))


def _read(
    config: RepoConfig,
    source: FileSource,
    columns: str,
    timestamp_field: str,
    start: datetime | None,
    end: datetime | None,
    suffix: str,
) -> RetrievalJob:
    """Prepare a query over one table between two instants, both included."""
    time = _quote([timestamp_field])

    def query() -> pa.Table:
        with _connect() as connection:
            return connection.sql(
                f"SELECT {columns} FROM read_parquet($path)"
                f" WHERE ($start IS NULL OR {time} >= $start)"
                f" AND ($end IS NULL OR {time} <= $end) {suffix}",
                params={"path": _resolve(source, config.repo_path), "start": start, "end": end},
            ).to_arrow_table()

    return ArrowRetrievalJob(
        query, on_demand_feature_views=[], full_feature_names=False, metadata=None
    )


def _connect() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def _quote(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _resolve(source: FileSource, repo_path: Path | None) -> str:
    path = Path(source.path)
    return str(path if path.is_absolute() or repo_path is None else repo_path / path)
