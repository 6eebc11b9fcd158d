"""``throughline bench load``: our load generator beside wrk, on the same target.

The target answers a constant (uvicorn, ``load_constant``), so differences are the generators' own.
Both send the same bytes over as many connections in a closed loop, in turn, several times; the
median of the runs is the row. wrk counts processor time in C, so its share is the floor: what
sockets cost on this machine.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from configs.benchmark import Target as Goal
from configs.benchmark import build_benchmark
from configs.progress import show_progress
from serving.load_plan import Target
from serving.load_report import describe_generator
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.server import SOURCE_FOLDER, find_free_port

BODY = (
    b'{"transaction_id":"throughline-load:t1","event_time":"2026-03-01T12:00:00+00:00",'
    b'"customer_id":"c1","amount":12.5,"card_type":"credit","merchant_id":"m1",'
    b'"merchant_category":"grocery","ip":"10.0.0.1","device_id":"d1","latitude":52.5,'
    b'"longitude":13.4}'
)
PATH = "/v1/score"
OPEN_SHARE = 0.5
"""Share of the closed loop's rate that the open loop is run at."""
READY_SECONDS = 20.0
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
MAX_US_PER_REQUEST = 10.0
MIN_RATIO_TO_WRK = 0.9

Row = dict[str, float]


def run_bench_load(*, seconds: float, connections: int, rounds: int) -> dict[str, Any]:
    """Measure both generators against the constant target.

    Args:
        seconds: Length of each run.
        connections: Of each generator.
        rounds: How many runs of each.

    Returns:
        As ``build_benchmark``; a row per generator, wrk's only where it is installed.
    """
    has_wrk = shutil.which("wrk") is not None
    with start_constant_target() as url:
        runs: dict[str, Callable[[], Row]] = {
            "ours, closed loop": lambda: measure_ours(
                url, rate=None, seconds=seconds, connections=connections
            )
        }
        if has_wrk:
            runs["wrk, closed loop"] = lambda: measure_wrk(
                url, seconds=seconds, connections=connections
            )
        rows = _take_turns(runs, rounds=rounds)
        rate = OPEN_SHARE * rows["ours, closed loop"]["qps"]
        rows["ours, open loop"] = measure_ours(
            url, rate=rate, seconds=seconds, connections=connections
        )
    ours, wrk = rows["ours, closed loop"], rows.get("wrk, closed loop")
    goals = [
        Goal(
            "requests_per_second_ratio_to_wrk",
            None if wrk is None else round(ours["qps"] / wrk["qps"], 3),
            MIN_RATIO_TO_WRK,
            "at_least",
        ),
        Goal(
            "cpu_us_per_request, closed loop",
            ours["cpu_us_per_request"],
            MAX_US_PER_REQUEST,
            "at_most",
        ),
    ]
    result = build_benchmark(
        ({"name": name, **row} for name, row in rows.items()), goals, next_command="make docs"
    )
    return (
        result if has_wrk else {**result, "note": "wrk is not installed: nothing to compare with"}
    )


@contextmanager
def start_constant_target() -> Iterator[str]:
    """Run the constant application with uvicorn beside the block; yield its address.

    Raises:
        ValueError: If it does not answer in time.
    """
    port = find_free_port()
    options = ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "serving.load_constant:app", *options],
        cwd=SOURCE_FOLDER,
        stdin=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise ValueError(f"the bench's own target does not answer at {url}") from error
            time.sleep(0.05)
        else:
            return


def _take_turns(runs: Mapping[str, Callable[[], Row]], *, rounds: int) -> dict[str, Row]:
    """Run each in turn, so that the machine's moods hit all; take each figure's median."""
    seen: dict[str, list[Row]] = {name: [] for name in runs}
    with show_progress("Load generators in turn", total=rounds * len(runs)) as advance:
        for _ in range(rounds):
            for name, measure in runs.items():
                seen[name].append(measure())
                advance(1)
    return {
        name: {key: round(median(row[key] for row in rows), 3) for key in rows[0]}
        for name, rows in seen.items()
    }


def measure_ours(url: str, *, rate: float | None, seconds: float, connections: int) -> Row:
    """Measure our generator against the target."""
    result = measure_load(
        Target(url, PATH),
        [BODY],
        rate=rate,
        connections=connections,
        seconds=seconds,
        warm_up_seconds=0.5,
    )
    return {**_describe(result), **({} if rate is None else {"offered_qps": round(rate, 1)})}


def _describe(result: LoadResult) -> Row:
    generator = describe_generator(result)
    return {
        "qps": round(result.qps, 1),
        "p50_ms": result.latencies.get_value_at_percentile(50.0) / 1e3,
        "p99_ms": result.latencies.get_value_at_percentile(99.0) / 1e3,
        "errors": sum(result.errors.values()),
        "cpu_us_per_request": generator["generator_us_per_request"],
        "cpu_share": generator["generator_cpu_share"],
    }


def measure_wrk(url: str, *, seconds: float, connections: int) -> Row:
    """Measure wrk against the target; it takes whole seconds."""
    length = max(round(seconds), 1)
    options = ["-t1", f"-c{connections}", f"-d{length}s", "--latency"]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\n"
            "wrk.headers['Content-Type'] = 'application/json'\n",
            encoding="utf-8",
        )
        before = _read_children_cpu()
        command = ["wrk", *options, "-s", str(script), url + PATH]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu_seconds = _read_children_cpu() - before
    row, requests = parse_wrk(text)
    return {
        **row,
        "cpu_us_per_request": round(1e6 * cpu_seconds / max(requests, 1), 2),
        "cpu_share": round(cpu_seconds / length, 3),
    }


def _read_children_cpu() -> float:
    """Read the processor time of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def parse_wrk(text: str) -> tuple[Row, int]:
    """Read wrk's report: its figures, in our units, and how many requests it sent.

    Raises:
        ValueError: If this is no report of ``wrk --latency``.
    """
    latencies = {
        share: float(value) * UNITS_MS[unit]
        for share, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", text, re.M)
    }
    qps = re.search(r"^Requests/sec:\s+([\d.]+)$", text, re.MULTILINE)
    requests = re.search(r"^\s*(\d+) requests in", text, re.MULTILINE)
    if qps is None or requests is None or latencies.keys() != {"50", "99"}:
        raise ValueError(f"no report of wrk: {text[:200]}")
    failed = re.search(r"^\s*Non-2xx or 3xx responses: (\d+)$", text, re.MULTILINE)
    lost = re.search(r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+)", text, re.M)
    errors = int(failed[1]) if failed else 0
    errors += sum(map(int, lost.groups())) if lost else 0
    row = {
        "qps": float(qps[1]),
        "p50_ms": latencies["50"],
        "p99_ms": latencies["99"],
        "errors": errors,
    }
    return row, int(requests[1])
