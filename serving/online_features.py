"""An opened feature store becomes a reader that outlives the store's files.

``throughline fraud features`` replaces the store on disk while a service runs, and an open
database would go on answering from the deleted file. So the reader looks at the store's stamp
before each read, and opens the store anew when it was replaced or failed. Invariant: it never reads
a store whose features are others than those it began with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import pandas as pd

from features.fraud_selection import FeatureSet

REOPEN_SECONDS = 1.0
"""A store that fails is opened anew at most this often: opening takes a tenth of a second."""


OTHER_FEATURES = "the feature store was rebuilt with other features; restart the service"


class StoreUnavailableError(RuntimeError):
    """The store on disk cannot be read from."""


class HasFeatures(Protocol):
    """An opened store that knows its features."""

    @property
    def features(self) -> FeatureSet:
        """Which features it holds, in the model's order."""


Store = TypeVar("Store", bound=HasFeatures)


class OnlineFeatures(Generic[Store]):
    """Read online features, one caller at a time.

    Args:
        open_store: Opens the store; raises while there is none.
        read: Store and transactions -> their online features, same order.
        stamp_file: The file that is written last when the store is built.

    Raises:
        FileNotFoundError: If there is no store to begin with.
    """

    def __init__(
        self,
        *,
        open_store: Callable[[], Store],
        read: Callable[[Store, pd.DataFrame], pd.DataFrame],
        stamp_file: Path,
    ) -> None:
        self._open_store = open_store
        self._read = read
        self._stamp_file = stamp_file
        self._lock = threading.Lock()
        self._stamp = self._read_stamp()
        self._store = open_store()
        self._opened_at = time.monotonic()
        self._has_failed = False
        self._why_unusable = ""
        self.feature_set = self._store.features

    def read(self, transactions: pd.DataFrame) -> pd.DataFrame:
        """Read the features of transactions; whatever the store raises goes through.

        Raises:
            StoreUnavailableError: If the store was rebuilt with other features, or is not there.
        """
        with self._lock:
            if self._has_failed or self._read_stamp() != self._stamp:
                self._reopen()
            try:
                return self._read(self._store, transactions)
            except Exception:
                self._has_failed = True
                raise

    def _reopen(self) -> None:
        """Open the store anew, unless that was tried a moment ago."""
        if time.monotonic() - self._opened_at >= REOPEN_SECONDS:
            self._opened_at = time.monotonic()
            stamp = self._read_stamp()
            try:
                store = self._open_store()
            except Exception as error:  # noqa: BLE001 - Feast's errors are of many kinds
                self._why_unusable = repr(error)
            else:
                is_same = store.features.names == self.feature_set.names
                self._why_unusable = "" if is_same else OTHER_FEATURES
                if is_same:
                    self._store, self._stamp, self._has_failed = store, stamp, False
        if self._why_unusable:
            raise StoreUnavailableError(self._why_unusable)

    def _read_stamp(self) -> tuple[int, int] | None:
        """Return what changes when the file is replaced, or None while there is no file."""
        try:
            found = self._stamp_file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns
