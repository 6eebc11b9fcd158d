"""``throughline bench pipeline``: scored, published, processed, and known to the next request.

One world, one Redis, the service, stream processors and an open-loop load of different
transactions, all real processes on one machine. Timed are the answers, and for every transaction
the time from its decision to the instant its customer's windows held it. At the end every state is
compared, byte by byte, with an offline build of the history and exactly what was answered. Plain
uvicorn, measured before and after in the same run, says how fast the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pandas as pd
from prometheus_client.parser import text_string_to_metric_families

from configs.benchmark import build_benchmark
from configs.files import write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_transactions
from features.bench_stream import count_wrong_states
from features.connections import connect_states
from features.fraud_stream import FraudStream, connect_stream
from features.store import get_store_folder, open_feature_store
from serving.core_count import CoreCount
from serving.pipeline_figures import Measured, Verdict, build_rows, build_targets, select_main
from serving.pipeline_load import load_phase
from serving.pipeline_picture import plot_freshness
from serving.pipeline_probe import Probe, build_paid, count_unseen
from serving.pipeline_processors import start_processors
from serving.pipeline_world import build_pipeline_world, render_transactions
from serving.prediction_log import get_prediction_folder
from serving.server import find_free_port, start_service
from serving.stage_times import read_stage_times
from serving.uvicorn_ceiling import measure_uvicorn_ceiling

PROBE_PREFIX = "pipeline-probe-"
FIRST_RATE, FIRST_SECONDS = 50.0, 2.0
"""The very first transactions compile the processor's kernels, before any clock runs."""
WARM_UP_SECONDS = 2.0
DRAIN_SECONDS = 120.0


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
            processors=processors,
            train=train,
        )
        with world as own:
            stream = connect_stream(own.runs, open_feature_store(own.runs), own.stream)
            (body,) = render_transactions(load_transactions(own.runs).tail(1))
            with show_progress("Measuring plain uvicorn"):
                before = measure_uvicorn_ceiling(own, body)
            measured = _measure(own, stream, rate=rate, seconds=seconds, num_processors=processors)
            with show_progress("Measuring plain uvicorn again"):
                ceilings = (before, measure_uvicorn_ceiling(own, body))
            with show_progress("Comparing every state with an offline build"):
                verdict = _compare(own, stream, measured)
    result = build_benchmark(
        build_rows(measured, ceilings, rate=rate, workers=workers),
        build_targets(measured, verdict),
    )
    result["stages_us"] = measured.stages_us
    if picture is not None:
        with write_whole(picture) as part:
            part.write_text(plot_freshness(*select_main(measured)), encoding="utf-8")
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
    load = partial(load_phase, history=load_transactions(config.runs))
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
