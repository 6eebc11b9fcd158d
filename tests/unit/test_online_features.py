from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from features.fraud_selection import FeatureSet
from serving import online_features
from serving.online_features import OnlineFeatures, StoreUnavailableError


@dataclass
class FakeStore:
    """A store whose answers name the generation of the folder it was opened from."""

    generation: int
    features: FeatureSet
    is_broken: bool = False


class FakeFolder:
    """Files that can be replaced, as ``throughline fraud features`` does."""

    def __init__(self, stamp_file: Path) -> None:
        self.stamp_file = stamp_file
        self.opened: list[FakeStore] = []
        self.generation = 0
        self.rebuild("amount_log")

    def rebuild(self, *names: str) -> None:
        self.generation += 1
        self.names = names
        self.stamp_file.unlink(missing_ok=True)
        self.stamp_file.write_text(str(self.generation) * self.generation)

    def open(self) -> FakeStore:
        if not self.stamp_file.exists():
            raise FileNotFoundError("no feature store")
        features = FeatureSet(names=self.names, categorical=(), dropped={})
        self.opened.append(FakeStore(self.generation, features))
        return self.opened[-1]


def read(store: FakeStore, transactions: pd.DataFrame) -> pd.DataFrame:
    if store.is_broken:
        raise OSError("disk I/O error")
    return transactions.assign(generation=store.generation)


@pytest.fixture
def folder(tmp_path):
    return FakeFolder(tmp_path / "features.json")


@pytest.fixture
def reader(folder, monkeypatch):
    monkeypatch.setattr(online_features, "REOPEN_SECONDS", 0.0)
    return OnlineFeatures(open_store=folder.open, read=read, stamp_file=folder.stamp_file)


def ask(reader: OnlineFeatures) -> int:
    return int(reader.read(pd.DataFrame({"transaction_id": ["t1"]}))["generation"].iloc[0])


def test_a_store_that_stays_is_opened_once(folder, reader):
    assert [ask(reader), ask(reader)] == [1, 1]
    assert len(folder.opened) == 1


def test_a_store_that_was_rebuilt_is_read_from_then_on(folder, reader):
    ask(reader)
    folder.rebuild("amount_log")
    assert ask(reader) == 2


def test_a_store_that_fails_is_opened_anew_at_the_next_read(folder, reader):
    folder.opened[0].is_broken = True
    with pytest.raises(OSError, match="disk I/O error"):
        ask(reader)
    assert ask(reader) == 1
    assert len(folder.opened) == 2


def test_a_store_that_keeps_failing_is_not_opened_at_every_read(folder, reader, monkeypatch):
    monkeypatch.setattr(online_features, "REOPEN_SECONDS", 3600.0)
    folder.opened[0].is_broken = True
    for _ in range(3):
        with pytest.raises(OSError, match="disk I/O error"):
            ask(reader)
    assert len(folder.opened) == 1


def test_a_store_that_is_away_for_a_while_is_found_when_it_is_back(folder, reader):
    folder.stamp_file.unlink()
    with pytest.raises(StoreUnavailableError, match="no feature store"):
        ask(reader)
    folder.rebuild("amount_log")
    assert ask(reader) == 2


def test_a_store_rebuilt_with_other_features_is_never_read_nor_is_the_one_before(
    folder, reader, monkeypatch
):
    folder.rebuild("amount_log", "V1")
    for seconds in (0.0, 3600.0):  # tried just now, and not tried again at once
        monkeypatch.setattr(online_features, "REOPEN_SECONDS", seconds)
        with pytest.raises(StoreUnavailableError, match="rebuilt with other features; restart"):
            ask(reader)
    monkeypatch.setattr(online_features, "REOPEN_SECONDS", 0.0)
    folder.rebuild("amount_log")
    assert ask(reader) == 3


def test_without_a_store_there_is_no_reader(folder):
    folder.stamp_file.unlink()
    with pytest.raises(FileNotFoundError):
        OnlineFeatures(open_store=folder.open, read=read, stamp_file=folder.stamp_file)
