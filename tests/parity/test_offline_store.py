"""The ASOF offline store against Feast's own ``file`` store, on the same definitions."""

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RegistryConfig, RepoConfig
from feast.types import Float64, String


def connect(folder, offline_store):
    return FeatureStore(
        config=RepoConfig(
            project="trial",
            provider="local",
            repo_path=folder,
            registry=RegistryConfig(path=str(folder / "registry.db")),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": offline_store},
            entity_key_serialization_version=3,
        )
    )


@pytest.fixture
def table(tmp_path):
    """Values of ten shops at random hours; some shops have none."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "shop_id": [f"s{code}" for code in rng.integers(0, 8, 300)],
            "event_time": pd.Timestamp("2026-01-01", tz="UTC")
            + pd.to_timedelta(rng.choice(5000, 300, replace=False), unit="min"),
            "sales": rng.normal(size=300),
            "visits": rng.normal(size=300),
        }
    )
    rows.to_parquet(tmp_path / "shops.parquet", coerce_timestamps="us")
    return tmp_path


def make_definitions(folder, ttl):
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="shop_day",
        entities=[shop],
        ttl=ttl,
        schema=[
            Field(name="shop_id", dtype=String),
            Field(name="sales", dtype=Float64),
            Field(name="visits", dtype=Float64),
        ],
        source=FileSource(
            name="shops", path=str(folder / "shops.parquet"), timestamp_field="event_time"
        ),
    )
    return [shop, view]


@pytest.mark.parametrize("ttl", [pd.Timedelta(0), pd.Timedelta(hours=6)])
@pytest.mark.filterwarnings("ignore::FutureWarning:dask")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_join_equals_stock_feasts(table, ttl):
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "shop_id": [f"s{code}" for code in rng.integers(0, 10, 200)],
            "event_timestamp": pd.Timestamp("2026-01-01", tz="UTC")
            + pd.to_timedelta(rng.choice(5000, 200, replace=False), unit="min"),
        }
    )
    answers = []
    for offline_store in ("file", "features.offline_store.AsofOfflineStore"):
        folder = table / offline_store
        folder.mkdir()
        store = connect(folder, offline_store)
        store.apply(make_definitions(table, ttl.to_pytimedelta()))
        job = store.get_historical_features(
            entity_df=rows, features=["shop_day:sales", "shop_day:visits"]
        )
        answers.append(job.to_df().sort_values("event_timestamp", ignore_index=True))
    stock, ours = answers
    kept = ours["event_timestamp"].isin(stock["event_timestamp"])
    assert stock["sales"].notna().sum() > 50
    pd.testing.assert_frame_equal(
        ours.loc[kept, stock.columns].reset_index(drop=True), stock, check_dtype=False
    )
    # Feast's file store drops a row whose entity has values, but none in reach; ours says NULL.
    assert len(ours) == len(rows)
    assert ours.loc[~kept, ["sales", "visits"]].isna().all(axis=None)


def test_an_entity_frame_that_is_a_query_is_refused(table):
    store = connect(table, "features.offline_store.AsofOfflineStore")
    store.apply(make_definitions(table, pd.Timedelta(0).to_pytimedelta()))
    with pytest.raises(ValueError, match="DataFrame"):
        store.get_historical_features(entity_df="SELECT 1", features=["shop_day:sales"]).to_df()
