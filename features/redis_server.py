"""A Redis of one's own: started on a free port of loopback, stopped at the end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

START_SECONDS = 10.0


def is_redis_installed() -> bool:
    """Whether ``redis-server`` is on the PATH."""
    return shutil.which("redis-server") is not None


@contextmanager
def start_redis(folder: Path, *, is_durable: bool = True) -> Iterator[str]:
    """Run a Redis server; yield its URL.

    Args:
        folder: The server's own; made if absent.
        is_durable: Keep an append-only file there, synced for each write; else nothing is kept.

    Raises:
        FileNotFoundError: If ``redis-server`` is not installed.
        TimeoutError: If it does not answer in ``START_SECONDS``.
    """
    if not is_redis_installed():
        raise FileNotFoundError("no redis-server on the PATH; install it (Debian: redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "save": "",
        "appendonly": "yes" if is_durable else "no",
        "appendfsync": "always",
        "auto-aof-rewrite-min-size": "1gb",  # a bench writes much and runs for a minute
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        url = f"redis://127.0.0.1:{port}/0"
        _wait_until_it_answers(url)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    client = redis.Redis.from_url(url)
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"redis-server did not answer at {url}") from None
            time.sleep(0.02)
        else:
            return
