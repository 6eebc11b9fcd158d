"""A running fraud service becomes numbers: throughput, latency percentiles, wrong answers by kind.

The generator is a closed loop: each connection waits for its answer before it asks again. A slow
service is therefore asked less, and the requests it would have kept waiting are never sent: under
overload a closed loop understates latency ("coordinated omission"). Read these percentiles as
"with this many users who wait", not as "at this many requests a second".
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np
import pandas as pd

from configs.files import read_json, write_json
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud import load_transactions
from serving.client import build_messages
from serving.load_report import MAX_LATENCY_US, Measurement, describe_load, plot_latency
from serving.prediction_log import LOAD_TEST_PREFIX, Decision
from serving.server import find_free_port, start_service

NUM_WARM_UP = 50


def run_load(
    config: FraudConfig, *, url: str | None = None, now: pd.Timestamp | None = None
) -> dict[str, Any]:
    """Send random customers' transactions to the service, check every answer, measure.

    Args:
        config: ``load`` says how many requests over how many connections; ``runs`` has the
            transactions, and the champion if the service is to be started here.
        url: A service on this machine; by default one is started, and stopped at the end.
        now: The instant the requests follow, UTC; by default the one the online store was built
            for, since windows asked for much later are empty.

    Returns:
        What was measured, ``caveat``, ``wrote`` (``load.json`` and ``latency.svg``) and ``next``.
        Latencies are in milliseconds, from the call to the whole answer.

    Raises:
        FileNotFoundError: If there are no transactions to draw from.
        ValueError: If ``url`` is not on this machine, or no service answers there.
    """
    messages = draw_messages(
        load_transactions(config.runs),
        num_messages=config.load.num_requests + NUM_WARM_UP,
        seed=config.seed,
        now=now or _read_store_instant(config.runs),
    )
    with _reach_service(config, url) as target:
        measured = asyncio.run(
            _measure(
                target,
                messages,
                num_connections=config.load.num_connections,
                timeout_seconds=config.load.timeout_seconds,
            )
        )
    folder = config.runs / "load"
    result = {**describe_load(measured), "connections": config.load.num_connections}
    write_json(folder / "load.json", result)
    plot_latency(folder / "latency.svg", measured.latencies)
    return {
        **result,
        "wrote": [str(folder / "load.json"), str(folder / "latency.svg")],
        "next": "throughline fraud load --url URL --replay-days 3, then throughline fraud monitor",
    }


def _read_store_instant(runs: Path) -> pd.Timestamp | None:
    """Read which instant the online store was built for; ``None`` where there is no store here."""
    from features.store import get_stamp_file  # here, since it takes Feast seconds to load

    stamp = get_stamp_file(runs)
    return pd.Timestamp(read_json(stamp)["as_of"]) if stamp.is_file() else None


@contextmanager
def _reach_service(config: FraudConfig, url: str | None) -> Iterator[str]:
    if url is None:
        with start_service(config, port=find_free_port(config.serving.host)) as started:
            yield started
    else:
        check_is_loopback(url)
        yield url.rstrip("/")


def check_is_loopback(url: str) -> None:
    """Refuse to load-test any machine but this one: it would look like an attack.

    Raises:
        ValueError: If ``url`` is no http address of this machine.

    >>> check_is_loopback("http://127.0.0.1:3000")
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if parts.scheme != "http" or not is_loopback:
        raise ValueError(
            f"--url is '{url}'; a load test only goes to this machine, as http://127.0.0.1:3000"
        )


def draw_messages(
    transactions: pd.DataFrame, *, num_messages: int, seed: int, now: pd.Timestamp | None = None
) -> list[dict[str, Any]]:
    """Invent requests: random past transactions, made again in the next hour.

    Args:
        transactions: In the contract's columns.
        num_messages: How many.
        seed: Of the draw.
        now: The instant the hour follows and the past precedes, UTC; by default just after the
            last transaction.

    Returns:
        Messages for ``/predict``. Their ids begin with ``LOAD_TEST_PREFIX``, so that monitoring
        does not take them for customers' transactions.

    Raises:
        ValueError: If there is no transaction before ``now``.
    """
    if now is None:
        now = transactions["event_time"].max() + pd.Timedelta(microseconds=1)
    past = transactions[transactions["event_time"] < now]
    if past.empty:
        raise ValueError(f"there is no transaction before {now} to make a load test of")
    generator = np.random.default_rng(seed)
    drawn = past.iloc[generator.integers(len(past), size=num_messages)].reset_index(drop=True)
    run_id = f"{LOAD_TEST_PREFIX}{time.time_ns()}-"
    moments = np.sort(generator.integers(3600 * 10**6, size=num_messages))
    drawn["event_time"] = now + pd.to_timedelta(moments, unit="us")
    drawn["transaction_id"] = [f"{run_id}{number}" for number in range(num_messages)]
    return build_messages(drawn)


async def _measure(
    url: str, messages: list[dict[str, Any]], *, num_connections: int, timeout_seconds: float
) -> Measurement:
    """Warm up, then let ``num_connections`` clients share the messages."""
    limits = httpx.Limits(max_connections=num_connections)
    async with httpx.AsyncClient(
        base_url=url, timeout=timeout_seconds, limits=limits, trust_env=False
    ) as client:
        await _get_served_versions(client)
        warm_up = Measurement()
        for message in messages[:NUM_WARM_UP]:
            await _ask(client, message, warm_up)
        measured = Measurement()
        pending = iter(messages[NUM_WARM_UP:])
        deadline = time.monotonic() + timeout_seconds
        with show_progress("Load test", total=len(messages) - NUM_WARM_UP) as advance:
            started, cpu_started = time.perf_counter(), time.process_time()

            async def ask_until_done() -> None:
                for message in pending:
                    await _ask(client, message, measured)
                    advance(1)
                    if time.monotonic() > deadline:
                        return

            await asyncio.gather(*(ask_until_done() for _ in range(num_connections)))
            measured.seconds = time.perf_counter() - started
            measured.generator_cpu_seconds = time.process_time() - cpu_started
        measured.timed_out = next(pending, None) is not None
        served = await _get_served_versions(client)
        for version in measured.model_versions.keys() - served:
            measured.errors["unknown model version"] += measured.model_versions[version]
    return measured


async def _get_served_versions(client: httpx.AsyncClient) -> set[str]:
    """Ask which models the service has answered with; tell where it cannot be asked."""
    try:
        response = await client.get("/model")
        response.raise_for_status()
        return set(response.json()["model_versions_served"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise ValueError(
            f"no fraud service answers at {client.base_url} ({error!r}); "
            "start one with `throughline fraud serve`, or leave --url out"
        ) from error


async def _ask(client: httpx.AsyncClient, message: dict[str, Any], measured: Measurement) -> None:
    """Send one request and note how long it took and whether the answer is right."""
    body = msgspec.json.encode({"transaction": message})
    measured.requests += 1
    started = time.perf_counter()
    try:
        response = await client.post(
            "/predict", content=body, headers={"content-type": "application/json"}
        )
    except httpx.HTTPError as error:
        measured.errors[type(error).__name__] += 1
        return
    elapsed = time.perf_counter() - started
    measured.latencies.record_value(min(max(int(elapsed * 1e6), 1), MAX_LATENCY_US))
    error_kind = check_answer(response.status_code, response.content, message["transaction_id"])
    if error_kind is not None:
        measured.errors[error_kind] += 1
        return
    answer = msgspec.json.decode(response.content)
    measured.model_versions[answer["model_version"]] += 1
    measured.degraded += answer["degraded_reason"] is not None


def check_answer(status: int, body: bytes, transaction_id: str) -> str | None:
    """Say what is wrong with an answer, or None.

    >>> check_answer(503, b"", "t1")
    'status 503'
    """
    if status != httpx.codes.OK:
        return f"status {status}"
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return "no JSON object"
    score = answer.get("score")
    if answer.get("transaction_id") != transaction_id:
        return "wrong transaction id"
    if not isinstance(score, float | int) or not 0.0 <= score <= 1.0:
        return "score outside [0, 1]"
    if answer.get("decision") not in get_args(Decision):
        return "unknown decision"
    if not isinstance(answer.get("model_version"), str) or "degraded_reason" not in answer:
        return "missing field"
    return None
