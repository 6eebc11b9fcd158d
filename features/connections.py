"""Addresses become connections to the online store: its states, and the string Feast wants."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

import redis

from features.redis_states import RedisStates
from features.sqlite_states import SqliteStates
from features.state_store import StateStore, StoreEmptyError

_REDIS_REPLIES = ("OOM", "READONLY", "MISCONF", "LOADING")
_SQLITE_MESSAGES = ("database is locked", "database or disk is full", "disk I/O error")
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT)


def is_temporary(error: Exception) -> bool:
    """Say whether an error of a connection or a file goes away without anyone changing the code.

    A server that is away or without memory, a locked database, a full disk, a file that is being
    replaced: these are waited for. Anything else, a refused password for one, is not.

    >>> is_temporary(redis.ConnectionError()), is_temporary(redis.AuthenticationError())
    (True, False)
    """
    match error:
        case redis.AuthenticationError():
            return False
        case redis.ConnectionError() | redis.TimeoutError() | StoreEmptyError():
            return True
        case redis.ResponseError():
            return isinstance(error, redis.OutOfMemoryError | redis.ReadOnlyError) or str(
                error
            ).startswith(_REDIS_REPLIES)
        case sqlite3.OperationalError():
            return str(error).startswith(_SQLITE_MESSAGES)
        case OSError():
            return error.errno in _ERRNOS
    return False


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
            f"no Redis answers at {url} ({error}); start one (make up STACK=1, or redis-server),"
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
    secret = f",password={unquote(parts.password)}" if parts.password else ""
    return f"{parts.hostname}:{parts.port or 6379},db={parts.path.strip('/') or 0}{secret}"
