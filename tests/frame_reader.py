"""Frames of transactions become features as the service computes them, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from features.connections import connect_states
from features.fraud_rows import COLUMNS, TILED
from features.redis_rows import RedisRows
from features.row_requests import build_row_requests
from features.row_states import RowReader, compute_features
from features.sqlite_rows import SqliteRows
from serving.score_messages import Transaction


class FrameReader:
    """Asks a store's row reader, in an event loop of its own that lasts as long as the reader."""

    def __init__(self, rows: RowReader, runner: asyncio.Runner) -> None:
        self.rows = rows
        self._runner = runner

    def read(self, transactions: pd.DataFrame) -> pd.DataFrame:
        """Compute every feature, NaN where a column is missing, and ``is_tiled``."""
        return self._runner.run(self._read(transactions))

    async def _read(self, transactions: pd.DataFrame) -> pd.DataFrame:
        requests = build_row_requests(to_transactions(transactions))
        await self.rows.read(requests)  # brings, before its replies, what Redis says has changed
        features, marks = compute_features(await self.rows.read(requests), requests)
        return pd.DataFrame(features, columns=list(COLUMNS)).assign(is_tiled=marks == TILED)


@contextmanager
def open_frame_reader(folder: Path, redis_url: str | None) -> Iterator[FrameReader]:
    """Open the store in ``folder`` as the service does, or the one in Redis."""
    with asyncio.Runner() as runner:
        if redis_url is None:
            rows: RowReader = SqliteRows(lambda: connect_states(folder, None))
        else:
            rows = RedisRows(redis_url)
        yield FrameReader(rows, runner)
        rows.close()


def to_transactions(transactions: pd.DataFrame) -> list[Transaction]:
    """Turn rows into the fast lane's messages; columns outside the contract are left out."""
    known = [name for name in Transaction.__struct_fields__ if name in transactions]
    rows = transactions[known].astype(object)
    rows = rows.where(transactions[known].notna(), None)
    rows["event_time"] = [time.to_pydatetime() for time in transactions["event_time"]]
    return [Transaction(**row) for row in rows.to_dict("records")]
