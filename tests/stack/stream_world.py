"""A small world whose stream runs in real processes that a test may kill, stop and hinder."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import redis

from configs.files import read_json, write_json
from configs.schema import FraudConfig, load_fraud_config
from data.fraud import load_transactions
from features.fraud_rebuild import run_rebuild
from features.fraud_state import EVENT_STATES
from features.fraud_stream import FraudStream, connect_stream
from features.state_merge import build_event_states
from features.store import get_stamp_file, open_feature_store

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.stack.stream_world"])


@dataclass(frozen=True)
class StreamWorld:
    """A feature store, and what happens after the instant it was built for.

    Attributes:
        config: ``runs`` is the test's own copy.
        history: What the store was built from.
        coming: What follows, in time order; not published yet.
    """

    config: FraudConfig
    history: pd.DataFrame
    coming: pd.DataFrame

    def connect(self) -> FraudStream:
        """Connect as any process does."""
        store = open_feature_store(self.config.runs)
        return connect_stream(self.config.runs, store, self.config.stream)

    def with_settings(self, **settings: float) -> StreamWorld:
        """Return the world with other settings of the stream."""
        stream = self.config.stream.model_copy(update=settings)
        return replace(self, config=self.config.model_copy(update={"stream": stream}))

    def after(self, transactions: pd.DataFrame) -> StreamWorld:
        """Return the world once the store was built anew with these in its history."""
        history = pd.concat([self.history, transactions])
        return replace(self, history=history, coming=self.coming.iloc[len(transactions) :])

    def check(self, stream: FraudStream, accepted: pd.DataFrame | None = None) -> None:
        """Check that exactly these transactions were accepted, and that every state says so."""
        accepted = self.coming if accepted is None else accepted
        archived = stream.archive.load()
        assert sorted(archived.get("transaction_id", [])) == sorted(accepted["transaction_id"])
        known = pd.concat([self.history, archived], ignore_index=True)
        for state, kind in EVENT_STATES.items():
            built = build_event_states(known, state)
            found = stream.states.read({kind.key: built[kind.key].tolist()}, [state])[state]
            wrong = [
                entity
                for entity, expected, got in zip(built[kind.key], built[state], found, strict=True)
                if got != expected
            ]
            assert wrong == [], state


def copy_world(
    source: Path,
    folder: Path,
    redis_url: str | None,
    *,
    log_redis_url: str | None = None,
    num_coming: int = 1500,
    **settings: Any,
) -> StreamWorld:
    """Copy a runs folder whose features were built as of its last ``num_coming`` transactions."""
    runs = folder / "runs"
    shutil.copytree(source, runs)
    changes: dict[str, Any] = {
        "runs": str(runs),
        "stream.num_partitions": 4,
        "stream.batch_rows": 50,
        "stream.lease_seconds": 1.0,
        "stream.wait_seconds": 0.01,
        **{f"stream.{name}": value for name, value in settings.items()},
    }
    if redis_url is not None:
        changes |= {"profile": "stack", "stack.redis_url": redis_url}
        stamp = get_stamp_file(runs)
        urls = {"redis_url": redis_url, "log_redis_url": log_redis_url}
        write_json(stamp, read_json(stamp) | urls)
    config = load_fraud_config(changes=changes)
    if redis_url is not None:
        run_rebuild(config)
    transactions = load_transactions(runs)
    return StreamWorld(config, transactions.iloc[:-num_coming], transactions.iloc[-num_coming:])


Hindrance = Callable[[FraudStream, Path], FraudStream]
"""Makes a stream whose parts fail; gets the folder that the test and its processes share."""


class _Wrapped:
    """A part of the stream with one method replaced."""

    def __init__(self, part: Any, **methods: Any) -> None:
        self._part = part
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def die_between_write_and_acknowledge(stream: FraudStream, _folder: Path) -> FraudStream:
    """Be killed once a batch's states are written, before it is acknowledged."""

    def write(updates: Any, *, lease: Any) -> None:
        stream.states.write(updates, lease=lease)
        os.kill(os.getpid(), signal.SIGKILL)

    return replace(stream, states=_Wrapped(stream.states, write=write))


def die_between_archive_and_write(stream: FraudStream, _folder: Path) -> FraudStream:
    """Be killed once a batch is archived, before its states are written."""

    def write(_updates: Any, *, lease: Any) -> None:  # noqa: ARG001
        os.kill(os.getpid(), signal.SIGKILL)

    return replace(stream, states=_Wrapped(stream.states, write=write))


def pause_before_write(stream: FraudStream, folder: Path) -> FraudStream:
    """Stop, as if by SIGSTOP from outside, before the first states are written."""
    paused = []

    def write(updates: Any, *, lease: Any) -> None:
        if updates and not paused:
            paused.append(True)
            (folder / "paused").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        stream.states.write(updates, lease=lease)

    return replace(stream, states=_Wrapped(stream.states, write=write))


class Processor:
    """A stream processor in a process of its own."""

    def __init__(self, process: BaseProcess, notes: Path) -> None:
        self.process = process
        self._notes = notes

    def tells(self, words: str) -> bool:
        """Whether it has said so."""
        return self._notes.exists() and words in self._notes.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the process with SIGKILL, stopped or not."""
        self.process.kill()
        self.process.join()

    def finish(self, seconds: float = 60) -> dict[str, int]:
        """Wait for the process to end well; return what it counted."""
        self.process.join(seconds)
        assert self.process.exitcode == 0, f"exit code {self.process.exitcode}"
        counts: dict[str, int] = json.loads(self._notes.with_suffix(".json").read_text())
        return counts


class Processors:
    """Starts processors and ends them all with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Processor] = []

    def start(
        self, world: StreamWorld, hindrance: Hindrance | None = None, *, until_empty: bool = False
    ) -> Processor:
        """Start a processor that is connected; it ends with SIGTERM, or when the log is empty."""
        notes = self.folder / f"processor{len(self._started)}.txt"
        process = PROCESSES.Process(
            target=_process, args=(world.config, hindrance, notes, until_empty)
        )
        process.start()
        self._started.append(Processor(process, notes))
        wait_until(notes.with_suffix(".ready").exists, seconds=120)  # the first imports all
        return self._started[-1]

    def end(self) -> None:
        """End every processor that is still alive."""
        for processor in self._started:
            processor.kill()


def _process(
    config: FraudConfig, hindrance: Hindrance | None, notes: Path, until_empty: bool
) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    store = open_feature_store(config.runs)
    stream = connect_stream(config.runs, store, config.stream)
    if hindrance is not None:
        stream = hindrance(stream, notes.parent)

    def tell(words: str) -> None:
        with notes.open("a") as file:
            file.write(f"{words}\n")

    notes.with_suffix(".ready").touch()
    processor = stream.make_processor(tell=tell)
    processor.run(until_empty=until_empty, should_stop=lambda: bool(stopped))
    notes.with_suffix(".json").write_text(json.dumps(asdict(processor.counts)))


def publish_with_retry(stream: FraudStream, chunks: Iterable[pd.DataFrame]) -> None:
    """Publish as a producer does who wants to lose nothing: again, until it succeeds."""
    for chunk in chunks:
        for _attempt in range(1000):
            try:
                stream.publish(chunk)
            except redis.RedisError:
                time.sleep(0.02)
            else:
                break
        else:
            raise AssertionError("could not publish")


def count_waiting(stream: FraudStream) -> int:
    """Count what is in the log, whichever partition."""
    return sum(map(stream.log.count_waiting, range(stream.log.num_partitions)))


def split(transactions: pd.DataFrame, rows: int) -> list[pd.DataFrame]:
    """Cut transactions into chunks."""
    return [transactions.iloc[at : at + rows] for at in range(0, len(transactions), rows)]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until something is so; return how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen"
        time.sleep(0.01)
    return time.monotonic() - started
