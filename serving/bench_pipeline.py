"""``throughline bench pipeline``: scored, published, processed, and known to the next request.

One world, one Redis, the service, stream processors and an open-loop load of different
transactions, all real processes on one machine. Timed are the answers, and for every transaction
the time from its decision to the instant its customer's windows held it. At the end every state is
compared, byte by byte, with an offline build of the history and exactly what was answered.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import psutil
from prometheus_client.parser import text_string_to_metric_families

from configs.benchmark import Target as BenchTarget
from configs.benchmark import build_benchmark
from configs.files import write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_transactions
from features.bench_stream import count_wrong_states
from features.connections import connect_states
from features.fraud_stream import FraudStream, connect_stream
from features.store import get_store_folder, open_feature_store
from serving.load_messages import FraudAnswer
from serving.load_plan import Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.pipeline_picture import plot_freshness
from serving.pipeline_probe import Probe, build_paid, count_unseen
from serving.pipeline_processors import ProcessorReport, start_processors
from serving.pipeline_world import build_pipeline_world, draw_coming, render_transactions
from serving.prediction_log import get_prediction_folder
from serving.server import find_free_port, start_service
from serving.stage_times import read_stage_times

ID_PREFIX, PROBE_PREFIX = "pipeline-", "pipeline-probe-"
CONNECTIONS = 256
FIRST_RATE, FIRST_SECONDS = 50.0, 2.0
"""The very first transactions compile the processor's kernels, before any clock runs."""
WARM_UP_SECONDS = 2.0
SPARE_SHARE, SPARE_ROWS = 0.05, 500
"""Bodies beyond ``rate`` times the seconds, since arrivals are random and none is sent twice."""
DRAIN_SECONDS = 120.0
MAX_FRESHNESS_SECONDS = 1.0


@dataclass(frozen=True)
class Phase:
    """One stretch of the load.

    Attributes:
        started: When the first request could be due, seconds since 1970.
        load: What the generator saw.
        accepted: The transactions that were answered with 200.
    """

    started: float
    load: LoadResult
    accepted: pd.DataFrame


@dataclass(frozen=True)
class Measured:
    """What one run saw.

    Attributes:
        main: The stretch that counts.
        accepted: Every transaction that was answered, of all stretches and the probe.
        reports: Of the processors.
        published: ``published_total`` and ``publish_dropped_total`` of the service.
        cores: Cores used in the main stretch, by part.
        stages_us: Microseconds of a transaction by stage; see ``serving.stage_times``. Of the
            publishing thread, beside them: processor time.
        probe: Stopped.
    """

    main: Phase
    accepted: pd.DataFrame
    reports: Sequence[ProcessorReport]
    published: dict[str, int]
    cores: dict[str, float]
    stages_us: dict[str, float]
    probe: Probe


def run_bench_pipeline(
    config: FraudConfig,
    *,
    customers: int,
    merchants: int,
    rate: float,
    seconds: float,
    workers: int,
    processors: int,
    train: Callable[[FraudConfig], object],
    picture: Path | None = None,
) -> dict[str, Any]:
    """Measure the whole path.

    Args:
        config: What is not decided here.
        customers: Of the simulated world.
        merchants: Of the simulated world.
        rate: Transactions a second, open loop.
        seconds: Length of the load that counts.
        workers: Of the service.
        processors: Of the stream.
        train: Trains a champion for a folder.
        picture: Where the freshness over time goes, as SVG; ``None`` for none.

    Returns:
        As ``configs.benchmark.build_benchmark``.

    Raises:
        FileNotFoundError: If ``redis-server`` is not installed.
        ValueError: If the service does not start.
    """
    with TemporaryDirectory() as name:
        world = build_pipeline_world(
            config,
            Path(name),
            customers=customers,
            merchants=merchants,
            workers=workers,
            train=train,
        )
        with world as own:
            stream = connect_stream(own.runs, open_feature_store(own.runs), own.stream)
            measured = _measure(own, stream, rate=rate, seconds=seconds, num_processors=processors)
            with show_progress("Comparing every state with an offline build"):
                verdict = _compare(own, stream, measured)
    result = build_benchmark(
        build_rows(measured, rate=rate, workers=workers), build_targets(measured, verdict)
    )
    result["stages_us"] = measured.stages_us
    if picture is not None:
        with write_whole(picture) as part:
            part.write_text(plot_freshness(*_select_main(measured)), encoding="utf-8")
        result["wrote"].append(str(picture))
    return result


def _measure(
    config: FraudConfig,
    stream: FraudStream,
    *,
    rate: float,
    seconds: float,
    num_processors: int,
) -> Measured:
    """Start everything, load it, and let it drain."""
    load = partial(_load, history=load_transactions(config.runs))
    with start_processors(config, num_processors=num_processors) as processors:
        with start_service(config, port=find_free_port()) as url:
            states = connect_states(get_store_folder(config.runs), config.redis_url)
            probe = Probe(url, states, id_prefix=PROBE_PREFIX)
            first = load(url, rate=min(FIRST_RATE, rate), seconds=FIRST_SECONDS, name="first")
            _wait_until_drained(url, stream, num_accepted=len(first.accepted))
            warm_up = load(url, rate=rate, seconds=WARM_UP_SECONDS, name="warm-up")
            cores = CoreCount(processors.process_ids)
            with probe:
                main = load(
                    url,
                    rate=rate,
                    seconds=seconds,
                    name="main",
                    on_begin=(probe.begin, cores.begin),
                )
                cores.end()
            phases = [first.accepted, warm_up.accepted, main.accepted]
            accepted = pd.concat([*phases, build_paid(probe)], ignore_index=True)
            published = _wait_until_drained(url, stream, num_accepted=len(accepted))
            stages_us = read_stage_times(url)
            publish_us = _read_publish_us(url)
        reports = processors.finish()
    return Measured(
        main=main,
        accepted=accepted,
        reports=reports,
        published=published,
        cores=cores.cores,
        stages_us={**stages_us, "publish, beside it": publish_us},
        probe=probe,
    )


def _load(
    url: str,
    *,
    history: pd.DataFrame,
    rate: float,
    seconds: float,
    name: str,
    on_begin: Sequence[Callable[[], None]] = (),
) -> Phase:
    """Send different transactions of this instant at a rate."""
    prefix = f"{ID_PREFIX}{name}-"
    coming = draw_coming(
        history,
        rate=rate,
        num_rows=int(rate * seconds * (1 + SPARE_SHARE)) + SPARE_ROWS,
        seed=len(prefix),
        id_prefix=prefix,
    )
    bodies = render_transactions(coming)
    started: list[float] = []

    def watch(elapsed: float) -> None:
        if elapsed >= 0 and not started:
            started.append(time.time() - elapsed)
            for begin in on_begin:
                begin()

    with show_progress(f"Load at {rate:,.0f} transactions/s, {name}"):
        result = measure_load(
            Target(url, "/v1/score"),
            bodies,
            rate=rate,
            connections=CONNECTIONS,
            seconds=seconds,
            warm_up_seconds=0.0,
            check=AcceptedCheck(prefix),
            watch=watch,
        )
    if result.interrupted:
        raise KeyboardInterrupt
    accepted = result.tallies.get("accepted", Counter())
    assert max(accepted.values(), default=1) == 1, "a transaction was sent twice"
    return Phase(started[0], result, coming[coming["transaction_id"].isin(accepted.keys())])


class AcceptedCheck:
    """Notes which transactions were answered (see ``load_plan.Check``).

    Attributes:
        tallies: ``accepted`` by transaction id, ``degraded_reason`` by reason.
    """

    def __init__(self, id_prefix: str) -> None:
        self.tallies: dict[str, Counter[str]] = {
            "accepted": Counter(),
            "degraded_reason": Counter(),
        }
        self._id_prefix = id_prefix
        self._decode = msgspec.json.Decoder(FraudAnswer).decode

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what it was made of: a decoder cannot be."""
        return AcceptedCheck, (self._id_prefix,)

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:  # noqa: ARG002
        """Say what is wrong with an answer of status 200, or None."""
        transaction_id = f"{self._id_prefix}{row}"
        self.tallies["accepted"][transaction_id] += 1
        answer = self._decode(body)
        if answer.degraded_reason is not None:
            self.tallies["degraded_reason"][answer.degraded_reason] += 1
        return None if answer.transaction_id == transaction_id else "wrong transaction id"


def _wait_until_drained(url: str, stream: FraudStream, *, num_accepted: int) -> dict[str, int]:
    """Wait until all that was answered is published or dropped, and the log is empty.

    Returns:
        ``published`` and ``dropped``, of all workers.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    with show_progress("Draining the stream"):
        while True:
            counts = _read_published(url)
            waiting = sum(map(stream.log.count_waiting, range(stream.log.num_partitions)))
            if sum(counts.values()) >= num_accepted and not waiting:
                return counts
            if time.monotonic() > deadline:  # then the comparison says what is missing
                return counts
            time.sleep(0.05)


def _read_published(url: str) -> dict[str, int]:
    text = httpx.get(f"{url}/metrics", timeout=5.0, trust_env=False).text
    values = {
        sample.name: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return {
        "published": values.get("throughline_published_total", 0),
        "dropped": values.get("throughline_publish_dropped_total", 0),
    }


def _read_publish_us(url: str) -> float:
    """Read what publishing a transaction costs one worker in processor time, microseconds."""
    publisher = httpx.get(f"{url}/model", timeout=5.0, trust_env=False).json()["publisher"]
    return float(publisher["cpu_seconds"] / max(publisher["published"], 1) * 1e6)


class CoreCount:
    """Counts the cores used by the parts of the bench between ``begin`` and ``end``.

    Args:
        processors: Process ids of the stream processors.

    Attributes:
        cores: Processor seconds a second, by part: ``service``, ``redis``, ``processors``.
    """

    def __init__(self, processors: Sequence[int]) -> None:
        self.cores: dict[str, float] = {}
        self._processors = processors
        self._before: dict[str, float] = {}
        self._began = 0.0

    def begin(self) -> None:
        """Read the clocks."""
        self._before, self._began = self._read(), time.perf_counter()

    def end(self) -> None:
        """Read them again."""
        seconds = time.perf_counter() - self._began
        for part, used in self._read().items():
            self.cores[part] = (used - self._before.get(part, 0.0)) / seconds

    def _read(self) -> dict[str, float]:
        """Read the processor seconds of the processes below this one, by what they are part of."""
        used: Counter[str] = Counter()
        for process in psutil.Process().children(recursive=True):
            times, line = process.cpu_times(), " ".join(process.cmdline())
            if process.pid in self._processors:
                used["processors"] += times.user + times.system
            elif "redis-server" in line or "bentoml" in line.lower():
                used["redis" if "redis-server" in line else "service"] += times.user + times.system
        return dict(used)


@dataclass(frozen=True)
class Verdict:
    """What the comparison with the offline build found, each 0 where all is right.

    Attributes:
        wrong_states: Not, byte by byte, what the offline build gives.
        lost: Transactions that were answered and are not in the archive.
        invented: Transactions in the archive that were not answered.
        dead_letters: Refused by the processors.
        unseen: Customers of the probe whose first payment never came to be known.
    """

    wrong_states: int
    lost: int
    invented: int
    dead_letters: int
    unseen: int


def _compare(config: FraudConfig, stream: FraudStream, measured: Measured) -> Verdict:
    accepted = measured.accepted
    answered = set(accepted["transaction_id"])
    archived = set(stream.archive.load().get("transaction_id", ()))
    known = pd.concat([load_transactions(config.runs), accepted], ignore_index=True)
    known = known.sort_values("event_time", kind="stable", ignore_index=True)
    return Verdict(
        wrong_states=count_wrong_states(config.runs, known),
        lost=len(answered - archived),
        invented=len(archived - answered),
        dead_letters=sum(stream.dead_letters.count().values()),
        unseen=count_unseen(measured.probe.sightings, get_prediction_folder(config.runs)),
    )


def _select_main(measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Select the transactions of the main stretch, the probe's among them included.

    Returns:
        When each was scored, seconds since the stretch began, and its freshness in seconds.
    """
    readable = np.concatenate([report.readable for report in measured.reports])
    freshness = np.concatenate([report.freshness for report in measured.reports])
    scored = readable - freshness - measured.main.started
    is_main = (scored >= 0) & (scored <= measured.main.load.seconds)
    return scored[is_main], freshness[is_main]


def build_rows(measured: Measured, *, rate: float, workers: int) -> list[dict[str, Any]]:
    """Make a row for the answers, one for the windows and one for the probe."""
    load, cores = measured.main.load, measured.cores
    _, freshness = _select_main(measured)
    seen = [one.seconds for one in measured.probe.sightings if one.seconds is not None]
    latency = load.latencies.get_value_at_percentile
    return [
        {
            "name": f"scored at {rate:,.0f}/s, {_count(workers, 'worker')}",
            "transactions": load.accepted,
            "tx_per_second": round(load.qps, 1),
            "p50_ms": latency(50.0) / 1e3,
            "p99_ms": latency(99.0) / 1e3,
            "errors": sum(load.errors.values()) + load.shed,
            "degraded": sum(load.tallies["degraded_reason"].values()),
            "cores": round(cores.get("service", 0.0), 2),
            "measured": {
                "degraded": dict(load.tallies["degraded_reason"]),
                "errors": dict(load.errors),
                "doubts": list(load.why),
                "published": measured.published,
                "redis_cores": cores.get("redis", 0.0),
            },
        },
        {
            "name": f"readable, {_count(len(measured.reports), 'processor')}",
            "transactions": len(freshness),
            "tx_per_second": round(_read_whole_rate(measured), 1),
            **_describe_ms(freshness),
            "cores": round(cores.get("processors", 0.0), 2),
            "measured": {"counts": [report.counts for report in measured.reports]},
        },
        {
            "name": "probe: scored, seen in Redis",
            "transactions": len(seen),
            **_describe_ms(np.array(seen)),
        },
    ]


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}{'s' * (num > 1)}"


def _describe_ms(seconds: np.ndarray) -> dict[str, float]:
    if not seconds.size:
        return {}
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    return {
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(float(seconds.max()) * 1e3, 1),
    }


def _read_whole_rate(measured: Measured) -> float:
    """Divide the transactions by the time from the first decision until the last was readable."""
    scored, freshness = _select_main(measured)
    if not scored.size:
        return 0.0
    return len(scored) / float((scored + freshness).max() - scored.min())


def build_targets(measured: Measured, verdict: Verdict) -> list[BenchTarget]:
    """Hold the path to what was promised."""
    _, freshness = _select_main(measured)
    p99 = float(np.percentile(freshness, 99)) if freshness.size else None
    seen = len(measured.probe.sightings)
    return [
        BenchTarget("tx_per_second", _read_whole_rate(measured), 10_000, "at_least"),
        BenchTarget("freshness_p99_s", p99, MAX_FRESHNESS_SECONDS, "at_most"),
        BenchTarget("wrong_states", verdict.wrong_states, 0, "at_most"),
        BenchTarget("transactions_lost", verdict.lost, 0, "at_most"),
        BenchTarget("transactions_invented", verdict.invented, 0, "at_most"),
        BenchTarget("dead_letters", verdict.dead_letters, 0, "at_most"),
        BenchTarget("probes_unseen", verdict.unseen if seen else None, 0, "at_most"),
    ]
