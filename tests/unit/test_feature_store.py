"""What a feature store refuses, and what an interrupted build leaves behind."""

from pathlib import Path

import pandas as pd
import pytest

from configs.files import write_json
from data.fraud import summary_path
from features import store_build as feature_store
from features.store import LOG_REDIS_VARIABLE, get_stamp_file, open_feature_store
from features.store_build import build_feature_store

NOON = pd.Timestamp("2026-01-02T12:00:00Z")


@pytest.fixture
def transactions():
    """Two transactions of one customer, a day apart."""
    return pd.DataFrame(
        {
            "transaction_id": ["t1", "t2"],
            "event_time": pd.to_datetime(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
            "customer_id": ["c1", "c1"],
            "amount": [10.0, 20.0],
        }
    )


@pytest.fixture
def labels():
    """No label has arrived."""
    return pd.DataFrame(
        {
            "transaction_id": pd.Series(dtype=object),
            "is_fraud": pd.Series(dtype=bool),
            "label_time": pd.Series(dtype="datetime64[us, UTC]"),
        }
    )


def hash_of(name):
    return {"sha256": {"transactions.parquet": name}}


def test_a_store_that_was_never_built_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="throughline fraud features"):
        open_feature_store(tmp_path)


def test_a_store_of_other_transactions_is_refused(tmp_path, transactions, labels):
    write_json(summary_path(tmp_path), hash_of("first"))
    build_feature_store(tmp_path, transactions, labels, as_of=NOON)
    write_json(summary_path(tmp_path), hash_of("second"))
    with pytest.raises(ValueError, match="built from other transactions"):
        open_feature_store(tmp_path)


def test_an_interrupted_build_leaves_the_store_before_it(
    tmp_path, transactions, labels, monkeypatch
):
    before = build_feature_store(tmp_path, transactions, labels, as_of=NOON)
    stamp = get_stamp_file(tmp_path).read_text()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(feature_store, "_materialise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_feature_store(tmp_path, transactions.head(1), labels, as_of=NOON)
    assert get_stamp_file(tmp_path).read_text() == stamp
    assert open_feature_store(tmp_path).features == before.features


def test_a_build_after_an_interrupted_one_succeeds(tmp_path, transactions, labels):
    (tmp_path / "feature_store.part").mkdir()
    (tmp_path / "feature_store.part" / "registry.db").write_bytes(b"half a registry")
    assert build_feature_store(tmp_path, transactions, labels, as_of=NOON).built_as_of == NOON


@pytest.mark.parametrize("name", ["day_of_week", "score", "customer_amount_std_30d", "ip_code"])
def test_a_column_named_like_a_feature_is_refused_by_name(tmp_path, transactions, labels, name):
    with pytest.raises(ValueError, match=f"{name}.*rename"):
        build_feature_store(tmp_path, transactions.assign(**{name: 1.0}), labels, as_of=NOON)


def test_a_store_below_a_relative_folder_is_built_and_opened(
    tmp_path, transactions, labels, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    build_feature_store(Path("runs/mine"), transactions, labels, as_of=NOON)
    assert (tmp_path / "runs" / "mine" / "feature_store" / "online.db").is_file()
    assert open_feature_store(Path("runs/mine")).built_as_of == NOON


LOG, MOVED_LOG = "redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0"


@pytest.mark.parametrize("built_with", [LOG, None])
@pytest.mark.parametrize("moved_to", [MOVED_LOG, None])
def test_a_store_says_where_the_log_is_that_feeds_it(
    tmp_path, transactions, labels, redis_url, monkeypatch, built_with, moved_to
):
    where = {"redis_url": redis_url, "log_redis_url": built_with}
    build_feature_store(tmp_path, transactions, labels, as_of=NOON, **where)
    if moved_to:
        monkeypatch.setenv(LOG_REDIS_VARIABLE, moved_to)
    assert open_feature_store(tmp_path).log_redis_url == (moved_to or built_with or redis_url)


def test_a_store_on_files_has_its_log_in_files_too(tmp_path, transactions, labels, monkeypatch):
    monkeypatch.setenv(LOG_REDIS_VARIABLE, LOG)
    assert build_feature_store(tmp_path, transactions, labels, as_of=NOON).log_redis_url is None
