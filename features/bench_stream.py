"""``throughline bench stream``: how many transactions a core carries to the windows, and how fresh.

One world, one Redis, one run: our processor on Redis and on SQLite; the same processor reading and
writing its states through Feast's SDK, the textbook way; and a live stream at a fixed rate, open
loop, timed from the instant an event was due to the instant its windows were readable. At the end
every state is compared, byte by byte, with an offline build from the same transactions.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from configs.benchmark import Target, build_benchmark, measure_in_a_process
from configs.progress import show_progress
from configs.sections import StreamSection, WorldSize
from data.fraud_world import simulate_world
from features.connections import connect_redis, connect_states
from features.fraud_state import EVENT_STATES, STATE_KEYS
from features.fraud_stream import FraudStream, connect_stream
from features.redis_log import RedisLog
from features.redis_server import start_redis
from features.redis_states import RedisStates
from features.state_merge import build_event_states
from features.state_store import Lease, Update
from features.store import open_feature_store
from features.store_build import build_feature_store
from features.stream_messages import Lateness

HISTORY_DAYS = 33
"""Windows reach back 30 days: the states the stream finds are full ones."""
FIRST_DAY = pd.Timestamp("2026-01-01", tz="UTC")
TICK_SECONDS = 0.01
SETTLE_SECONDS = 1.0
LIVE_SLACK_SECONDS = 60.0
ANY_LATENESS = Lateness(max_lateness=2**62, max_clock_skew=2**62)
"""The live run gives events of a simulated past to a publisher of today."""


def run_bench_stream(
    *, customers: int, merchants: int, rows: int, rate: int, seconds: int, settings: StreamSection
) -> dict[str, Any]:
    """Measure the stream processor beside Feast's SDK.

    Args:
        customers: Of the simulated world.
        merchants: Of the simulated world.
        rows: Transactions of the runs at full speed; a tenth of it goes through the SDK.
        rate: Transactions a second of the live run.
        seconds: Length of the live run.
        settings: Of the stream.

    Raises:
        FileNotFoundError: If ``redis-server`` is not installed.
    """
    with TemporaryDirectory() as name, start_redis(Path(name) / "redis") as url:
        folders = {"Redis": Path(name) / "stack", "SQLite": Path(name) / "embedded"}
        with show_progress("Preparing the world and two feature stores"):
            history, stream = _simulate(customers, merchants, num_rows=2 * rows + rate * seconds)
            for store, folder in folders.items():
                _build(folder, history, stream, redis_url=url if store == "Redis" else None)
        # The live rows come last, so that the states they meet hold all that came before.
        fast, slow = stream.iloc[:rows], stream.iloc[rows : rows + rows // 10]
        live = stream.iloc[rows + rows // 10 :][: rate * seconds]
        runs: list[tuple[str, Callable[..., dict[str, float]], dict[str, Any]]] = [
            ("ours, Redis", measure_drain, {"runs": folders["Redis"], "rows": fast}),
            ("ours, SQLite", measure_drain, {"runs": folders["SQLite"], "rows": fast}),
            ("Feast SDK, Redis", measure_sdk_drain, {"runs": folders["Redis"], "rows": slow}),
            (
                f"ours, Redis, live at {rate:,}/s",
                measure_live,
                {"runs": folders["Redis"], "rows": live, "rate": rate},
            ),
        ]
        measured = []
        with show_progress("Measuring", total=len(runs)) as advance:
            for label, measure, arguments in runs:
                figures = measure_in_a_process(measure, settings=settings, **arguments)
                measured.append({"name": label, **figures})
                advance(1)
        with show_progress("Comparing every state with an offline build"):
            wrong = count_wrong_states(folders["Redis"], pd.concat([history, fast, slow, live]))
            wrong += count_wrong_states(folders["SQLite"], pd.concat([history, fast]))
    return _judge(measured, wrong_states=wrong, rate=rate)


def _build(
    folder: Path, history: pd.DataFrame, stream: pd.DataFrame, *, redis_url: str | None
) -> None:
    labels = pd.DataFrame({"transaction_id": [], "is_fraud": []}, dtype=object)
    labels["label_time"] = history["event_time"].head(0)
    as_of = stream["event_time"].iloc[0]
    build_feature_store(folder, history, labels, as_of=as_of, redis_url=redis_url)


def _simulate(
    customers: int, merchants: int, *, num_rows: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate a history and at least ``num_rows`` transactions after it."""
    days = HISTORY_DAYS + 1 + int(num_rows / (1.4 * customers))
    world, _ = simulate_world(
        WorldSize(num_customers=customers, num_merchants=merchants, num_days=days),
        seed=7,
        start_time=FIRST_DAY.to_pydatetime(),
        label_delay_days=7,
        never_reported_share=0.0,
    )
    cut = FIRST_DAY + pd.Timedelta(days=HISTORY_DAYS)
    stream = world[world["event_time"] >= cut]
    if len(stream) < num_rows:
        raise ValueError(
            f"the world has {len(stream)} transactions to stream; lower --rows or --seconds"
        )
    return world[world["event_time"] < cut], stream.head(num_rows)


def measure_drain(*, runs: Path, rows: pd.DataFrame, settings: StreamSection) -> dict[str, float]:
    """Process a log that was filled before: transactions a second, and a second of one core."""
    return _drain(_connect(runs, settings), rows)


def measure_sdk_drain(
    *, runs: Path, rows: pd.DataFrame, settings: StreamSection
) -> dict[str, float]:
    """Do the same with states that are read and written through Feast's SDK."""
    return _drain(replace(_connect(runs, settings), states=SdkStates(runs)), rows)


def _drain(stream: FraudStream, rows: pd.DataFrame) -> dict[str, float]:
    processor = stream.make_processor()
    warm_up = len(rows) // 10  # compiles the kernel, fills the caches of ids
    stream.publish(rows.head(warm_up))
    processor.run(until_empty=True)
    stream.publish(rows.iloc[warm_up:])
    wall, cpu, server = time.perf_counter(), time.process_time(), _read_server_cpu(stream)
    processor.run(until_empty=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    server = _read_server_cpu(stream) - server
    num = len(rows) - warm_up
    return {
        "transactions": num,
        "transactions_per_second": round(num / wall),
        "transactions_per_second_per_core": round(num / (cpu + server)),
        "processor_share": round(cpu / (cpu + server), 2),
    }


def _read_server_cpu(stream: FraudStream) -> float:
    """Read the processor seconds that Redis has taken so far; 0 without one."""
    if not isinstance(stream.log, RedisLog):
        return 0.0
    return stream.log.read_cpu_seconds()


def measure_live(
    *, runs: Path, rows: pd.DataFrame, settings: StreamSection, rate: int
) -> dict[str, float]:
    """Process while another process publishes at a fixed rate; freshness from the due instant."""
    stream = _connect(runs, settings)
    freshness: list[np.ndarray] = []
    processor = stream.make_processor(observe=freshness.append)
    context = multiprocessing.get_context("spawn")
    publisher = context.Process(
        target=publish_at_rate,
        kwargs={"runs": runs, "rows": rows, "settings": settings, "rate": rate},
    )
    publisher.start()
    started, cpu = time.perf_counter(), time.process_time()
    deadline = started + len(rows) / rate + LIVE_SLACK_SECONDS

    def is_done() -> bool:
        is_published = processor.counts.accepted >= len(rows)
        return is_published or not publisher.is_alive() or time.perf_counter() > deadline

    processor.run(should_stop=is_done)
    processor.run(until_empty=True)  # the last merchants and addresses
    wall, cpu = time.perf_counter() - started - SETTLE_SECONDS, time.process_time() - cpu
    publisher.join()
    if publisher.exitcode:
        raise RuntimeError("the publisher of the live run failed; see its traceback above")
    seconds = np.concatenate(freshness)
    return {
        "transactions": processor.counts.accepted,
        "transactions_per_second": round(processor.counts.accepted / wall),
        "processor_cores": round(cpu / wall, 2),
        "freshness_p50_ms": round(float(np.percentile(seconds, 50)) * 1000, 1),
        "freshness_p99_ms": round(float(np.percentile(seconds, 99)) * 1000, 1),
        "freshness_max_ms": round(float(seconds.max()) * 1000, 1),
    }


def publish_at_rate(*, runs: Path, rows: pd.DataFrame, settings: StreamSection, rate: int) -> None:
    """Publish rows at a fixed rate, each stamped with the instant it was due."""
    stream = _connect(runs, settings)
    started, sent = time.time() + SETTLE_SECONDS, 0
    while sent < len(rows):
        due = min(int((time.time() - started) * rate), len(rows))
        if due > sent:
            first_due = pd.Timestamp(started + sent / rate, unit="s", tz="UTC")
            stream.publish(rows.iloc[sent:due], available_time=first_due)
            sent = due
        time.sleep(TICK_SECONDS)


def _connect(runs: Path, settings: StreamSection) -> FraudStream:
    stream = connect_stream(runs, open_feature_store(runs), settings)
    return replace(stream, settings=replace(stream.settings, lateness=ANY_LATENESS))


class SdkStates(RedisStates):
    """States read and written through Feast's SDK, as its documentation shows; one writer.

    Args:
        runs: Folder of the feature store.
    """

    def __init__(self, runs: Path) -> None:
        store = open_feature_store(runs)
        super().__init__(connect_redis(str(store.redis_url)))
        self._feast = store.feast

    def read(
        self, entities: Mapping[str, Sequence[str]], states: Sequence[str]
    ) -> dict[str, list[bytes | None]]:
        """Read states of entities, one view after the other."""
        found = {}
        for state in states:
            key = STATE_KEYS[state]
            answer = self._feast.get_online_features(
                features=[f"{state}_state:{state}"], entity_rows={key: list(entities[key])}
            )
            found[state] = list(answer.to_dict()[state])
        return found

    def write(self, updates: Sequence[Update], *, lease: Lease | None) -> None:  # noqa: ARG002
        """Write states, one view after the other."""
        for state, key in STATE_KEYS.items():
            mine = [update for update in updates if update.state == state]
            if mine:
                times = pd.to_datetime([update.event_time for update in mine], unit="us", utc=True)
                frame = {
                    key: [update.entity for update in mine],
                    state: [update.value for update in mine],
                    "event_time": times,
                }
                self._feast.write_to_online_store(f"{state}_state", df=pd.DataFrame(frame))


def count_wrong_states(runs: Path, transactions: pd.DataFrame) -> int:
    """Count the states that are not, byte by byte, what an offline build gives.

    Args:
        runs: Folder of the feature store.
        transactions: All that the store was told of, in the contract's columns and time order.
    """
    store = open_feature_store(runs)
    states = connect_states(store.folder, store.redis_url)
    wrong = 0
    for name, kind in EVENT_STATES.items():
        built = build_event_states(transactions, name)
        held = states.read({kind.key: built[kind.key].tolist()}, [name])[name]
        wrong += sum(a != b for a, b in zip(held, built[name], strict=True))
    return wrong


def _judge(measured: list[dict[str, Any]], *, wrong_states: int, rate: int) -> dict[str, Any]:
    ours, _, sdk, live = measured
    ours["ratio_to_sdk"] = round(
        ours["transactions_per_second_per_core"] / sdk["transactions_per_second_per_core"], 1
    )
    targets = [
        Target(
            "transactions_per_second_per_core",
            ours["transactions_per_second_per_core"],
            10_000,
            "at_least",
        ),
        Target(f"freshness_p99_ms_at_{rate}_per_second", live["freshness_p99_ms"], 1000, "at_most"),
        Target("states_unlike_an_offline_build", wrong_states, 0, "at_most"),
    ]
    return build_benchmark(measured, targets)
