"""Our offline store against Feast's own ``file`` store and against a loop over all pairs."""

import warnings
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RegistryConfig, RepoConfig
from feast.types import Float64, Int64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.offline_store import AsofOfflineStore
from features.store import make_entity_rows, read_training_features
from features.store_build import build_feature_store

OURS = "features.offline_store.AsofOfflineStore"
START = pd.Timestamp("2026-01-01", tz="UTC")
TTL = timedelta(hours=6)


def connect(folder, offline_store, *, project="trial"):
    return FeatureStore(
        config=RepoConfig(
            project=project,
            provider="local",
            repo_path=folder,
            registry=RegistryConfig(path=str(folder / "registry.db")),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": offline_store},
            entity_key_serialization_version=3,
        )
    )


def make_definitions():
    """Sales per shop and till, twice: values that live for ever, and for six hours."""
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
    till = Entity(name="till", join_keys=["till"], value_type=ValueType.INT64)
    source = FileSource(
        name="sales",
        path="sales.parquet",
        timestamp_field="event_time",
        created_timestamp_column="created",
    )
    keys = [Field(name="shop_id", dtype=String), Field(name="till", dtype=Int64)]
    values = [Field(name="sales", dtype=Float64), Field(name="clerk", dtype=String)]
    return [
        *(shop, till),
        *(
            FeatureView(
                name=name, entities=[shop, till], ttl=ttl, schema=[*keys, *values], source=source
            )
            for name, ttl in (("lasting", timedelta(0)), ("fleeting", TTL))
        ),
    ]


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """A folder whose registry knows the definitions; ``sales.parquet`` is each test's to write."""
    folder = tmp_path_factory.mktemp("shops")
    connect(folder, OURS).apply(make_definitions())
    return folder


def make_sales(num, *, seed):
    """Sales at random minutes of a day and a half, some at one instant, created later."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "shop_id": [f"s{code}" for code in rng.integers(0, 4, num)],
            "till": rng.integers(1, 3, num),
            "event_time": START + pd.to_timedelta(rng.integers(0, 36, num), unit="h"),
            "created": START + pd.to_timedelta(rng.permutation(num) + 5000, unit="min"),
            "sales": rng.normal(size=num),
            "clerk": [f"clerk {code}" for code in rng.integers(0, 9, num)],
        }
    )


def make_questions(num, *, seed):
    """Rows of shops and tills, some unknown, in no order, no two of one minute."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "row": np.arange(num),
            "shop_id": [f"s{code}" for code in rng.integers(0, 5, num)],
            "till": rng.integers(1, 4, num),
            "event_timestamp": START
            + pd.to_timedelta(rng.permutation(3000)[:num] - 60, unit="min"),
        }
    )


def write_sales(folder, sales):
    sales.to_parquet(folder / "sales.parquet", coerce_timestamps="us")


def ask(store, rows, features):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dask, in Feast's own store
        return store.get_historical_features(entity_df=rows, features=features).to_df()


def assert_stock_agrees(ours, stock, features):
    """Rows that stock Feast dropped must be NULL in ours; all others must be the same."""
    assert ours.index.is_unique
    kept = ours.loc[stock.index]
    for name in features:
        if pd.api.types.is_numeric_dtype(stock[name]):
            np.testing.assert_array_equal(
                kept[name].to_numpy(np.float64), stock[name].to_numpy(np.float64), err_msg=name
            )
        else:
            assert kept[name].fillna("").tolist() == stock[name].fillna("").tolist(), name


@pytest.mark.parametrize("view", ["lasting", "fleeting"])
def test_the_join_equals_stock_feasts(shops, view):
    # One sale per instant: stock Feast sorts by creation, then by time, but not stably.
    sales = make_sales(200, seed=0).drop_duplicates(["shop_id", "till", "event_time"])
    write_sales(shops, sales)
    rows = make_questions(300, seed=1)
    features = [f"{view}:sales", f"{view}:clerk"]
    ours, stock = (
        ask(connect(shops, store), rows, features).set_index("row") for store in (OURS, "file")
    )
    assert stock["sales"].notna().sum() > 50
    assert_stock_agrees(ours, stock, ["sales", "clerk"])
    # Feast's file store drops a row whose entity has values, but none in reach; ours says NULL.
    assert ours.index.tolist() == rows["row"].tolist()
    dropped = ours.drop(stock.index)
    assert len(dropped) > 0
    assert dropped[["sales", "clerk"]].isna().all(axis=None)


def test_every_fraud_feature_equals_stock_feasts(world, store):
    rng = np.random.default_rng(5)
    asked = make_entity_rows(world[0]).sample(300, random_state=0).reset_index(drop=True)
    # At other instants than the tables', so that values are looked back for.
    asked["event_timestamp"] += pd.to_timedelta(rng.integers(-40_000, 40_000, 300), unit="s")
    rows = asked.assign(row=np.arange(len(asked)))
    ours, stock = (
        ask(
            connect(store.folder, offline_store, project="throughline_fraud"),
            rows,
            store.training_service,
        ).set_index("row")
        for offline_store in (OURS, "file")
    )
    assert len(stock) > 200
    assert stock[list(store.features.computed)].notna().any().all()
    assert_stock_agrees(ours, stock, store.features.computed)


def test_keys_by_another_name_join_as_in_stock_feast(shops):
    write_sales(shops, make_sales(100, seed=2).drop_duplicates(["shop_id", "till", "event_time"]))
    rows = make_questions(50, seed=3).rename(columns={"shop_id": "neighbour"})
    answers = []
    for offline_store in (OURS, "file"):
        store = connect(shops, offline_store)
        view = store.get_feature_view("lasting").with_name("near")
        view = view.with_join_key_map({"shop_id": "neighbour"})[["sales"]]
        store.apply(make_service(view))
        service = store.get_feature_service("neighbours")
        answers.append(ask(store, rows, service).set_index("row"))
    assert answers[1]["sales"].notna().sum() > 10
    assert_stock_agrees(*answers, ["sales"])


def make_service(view):
    return FeatureService(name="neighbours", features=[view])


SALES = st.tuples(
    st.sampled_from("ab"), st.integers(1, 2), st.integers(0, 3), st.integers(0, 1)
)  # shop, till, hour, hour created
QUESTIONS = st.tuples(
    st.sampled_from(["a", "b", "c", None]), st.sampled_from([1, 2, 3, None]), st.integers(-1, 10)
)


def look_back(sales, question, *, ttl_hours):
    """Return the position of the sale that answers, by looking at every one."""
    shop, till, hour = question
    fits = [
        (sold, created, position)
        for position, (its_shop, its_till, sold, created) in enumerate(sales)
        if (its_shop, its_till) == (shop, till) and 0 <= hour - sold <= ttl_hours
    ]
    return float(max(fits)[-1]) if fits else None


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sales=st.lists(SALES, max_size=12), questions=st.lists(QUESTIONS, min_size=8, max_size=20))
def test_every_answer_is_the_one_a_look_at_every_sale_finds(shops, sales, questions):
    table = pd.DataFrame(
        {
            "shop_id": pd.Series([sale[0] for sale in sales], dtype="str").astype(object),
            "till": np.array([sale[1] for sale in sales], np.int64),
            "event_time": START + pd.to_timedelta([sale[2] for sale in sales], unit="h"),
            "created": START + pd.to_timedelta([sale[3] for sale in sales], unit="h"),
            "sales": np.arange(len(sales), dtype=np.float64),
            "clerk": pd.Series([""] * len(sales), dtype=object),
        }
    )
    write_sales(shops, table)
    rows = pd.DataFrame(
        {
            "shop_id": [shop for shop, _, _ in questions],
            "till": [till for _, till, _ in questions],
            "event_timestamp": START + pd.to_timedelta([hour for *_, hour in questions], unit="h"),
        }
    )
    store = connect(shops, OURS)
    for view, ttl_hours in (("lasting", 1000), ("fleeting", 6)):
        answer = ask(store, rows, [f"{view}:sales"])["sales"]
        expected = [look_back(sales, question, ttl_hours=ttl_hours) for question in questions]
        assert [None if np.isnan(value) else value for value in answer.astype(float)] == expected


def test_instants_a_nanosecond_apart_are_told_apart(shops):
    sales = make_sales(1, seed=0).assign(event_time=START + pd.Timedelta(nanoseconds=1))
    sales.to_parquet(shops / "sales.parquet")
    rows = pd.concat([sales[["shop_id", "till"]]] * 2, ignore_index=True)
    rows["event_timestamp"] = [START, START + pd.Timedelta(nanoseconds=1)]
    answer = ask(connect(shops, OURS), rows, ["lasting:sales"])
    assert answer["sales"].notna().tolist() == [False, True]


def test_categories_join_like_the_strings_they_stand_for(shops):
    write_sales(shops, make_sales(100, seed=2))
    rows = make_questions(50, seed=3)
    store = connect(shops, OURS)
    plain = ask(store, rows, ["lasting:sales"])
    coded = ask(store, rows.astype({"shop_id": "category"}), ["lasting:sales"])
    np.testing.assert_array_equal(coded["sales"], plain["sales"])


def test_a_key_that_no_transaction_has_gives_missing_features(world, tmp_path):
    transactions = world[0].head(50).assign(merchant_id=None)
    end = transactions["event_time"].iloc[-1] + timedelta(seconds=1)
    store = build_feature_store(tmp_path, transactions, world[1], as_of=end)
    history = read_training_features(store, transactions)
    assert history["merchant_amount_mean_30d"].isna().all()
    assert history["customer_tx_count_7d"].notna().all()


def test_of_an_instants_rows_the_one_created_last_is_materialised(shops):
    sales = make_sales(1, seed=4)
    later = sales.assign(created=sales["created"] + TTL, sales=7.0)
    write_sales(shops, pd.concat([sales, later, sales]))
    store = connect(shops, OURS)
    pulled = AsofOfflineStore.pull_latest_from_table_or_query(
        store.config,
        store.get_feature_view("lasting").batch_source,
        join_key_columns=["shop_id", "till"],
        feature_name_columns=["sales"],
        timestamp_field="event_time",
        created_timestamp_column="created",
        start_date=START.to_pydatetime(),
        end_date=(START + timedelta(days=9)).to_pydatetime(),
    )
    assert pulled.to_df()["sales"].tolist() == [7.0]


def test_rows_without_a_time_are_refused(shops):
    write_sales(shops, make_sales(10, seed=0))
    rows = make_questions(3, seed=0)
    rows.loc[1, "event_timestamp"] = pd.NaT
    with pytest.raises(ValueError, match="without one"):
        ask(connect(shops, OURS), rows, ["lasting:sales"])


def test_an_entity_frame_that_is_a_query_is_refused(shops):
    with pytest.raises(ValueError, match="DataFrame"):
        ask(connect(shops, OURS), "SELECT 1", ["lasting:sales"])
