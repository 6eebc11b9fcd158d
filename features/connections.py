"""Addresses become connections to the online store: its states, and the string Feast wants."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import redis

from features.redis_states import RedisStates
from features.sqlite_states import SqliteStates
from features.state_store import StateStore

UNAVAILABLE: tuple[type[Exception], ...] = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ResponseError,  # out of memory, read-only, its disk full
    sqlite3.OperationalError,
    FileNotFoundError,
)
"""What the connections raise while a server is away, or a file is being replaced."""
SOCKET_SECONDS = 5.0


def connect_redis(url: str) -> redis.Redis:
    """Connect to Redis.

    Raises:
        ValueError: If none answers there.
    """
    client = redis.Redis.from_url(
        url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS, protocol=2
    )
    try:
        client.ping()
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ValueError(
            f"no Redis answers at {url} ({error}); start one (make up, or redis-server),"
            " or set profile=embedded"
        ) from error
    return client


def connect_states(folder: Path, redis_url: str | None) -> StateStore:
    """Connect to the states of the feature store in ``folder``."""
    if redis_url is not None:
        return RedisStates(connect_redis(redis_url))
    return SqliteStates(folder / "online.db")


def make_feast_connection_string(url: str) -> str:
    """Turn a Redis URL into Feast's form.

    >>> make_feast_connection_string("redis://127.0.0.1:6379/2")
    '127.0.0.1:6379,db=2'
    """
    parts = urlsplit(url)
    secret = f",password={parts.password}" if parts.password else ""
    return f"{parts.hostname}:{parts.port},db={parts.path.strip('/') or 0}{secret}"
