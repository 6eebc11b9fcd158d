"""Services side by side become a benchmark: requests a second, latency, and what a core is worth.

A closed loop of ``CONNECTIONS`` finds what each service can do. The machine is noisy, and shared
with the generator and Redis, so all are measured in rounds, one after another, and the best round
counts for each. Ours is then asked at a fixed rate, open loop, and its latency is
held to the promise. Before any of it, a service's scores are held against the champion's own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from configs.benchmark import Target as BenchTarget
from configs.benchmark import build_benchmark
from configs.files import write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from serving.load_plan import Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.peers import (
    CONNECTIONS,
    OURS,
    OURS_TWO,
    TEXTBOOK,
    UVICORN,
    Peer,
    PeerWorld,
    ScoreCheck,
    list_peers,
    list_steps,
    make_answer,
)
from serving.serving_pictures import plot_peers, plot_stages
from serving.serving_world import ServingWorld, prepare_world
from serving.stage_times import read_stage_times

NUM_REQUESTS = 2000
NUM_COMPARED = 50
WARM_UP_SECONDS = 2.0
RATE = 10_000
RATE_CONNECTIONS = 64
MAX_DIFFERENCE = 1e-9

Row = dict[str, Any]


@dataclass
class Measured:
    """One service in one round.

    Attributes:
        closed: At saturation.
        cores: How many cores the service's processes used then, Redis's apart.
        difference: Largest between its scores and the champion's.
        open: At ``RATE``; ``None`` where it was not asked.
        stages: Microseconds of a request by stage; empty for others than ours.
    """

    closed: LoadResult
    cores: float
    difference: float
    open: LoadResult | None = None
    stages: dict[str, float] = field(default_factory=dict)


def run_bench_serving(
    config: FraudConfig,
    *,
    train: Callable[[FraudConfig], object],
    seconds: float,
    rounds: int,
    ablate: bool = False,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Measure our service beside its peers, or the steps that lead to it.

    Args:
        config: ``runs`` is the bench's own folder.
        train: Trains a champion for a folder that has none.
        seconds: Length of each measurement.
        rounds: How often each service is measured.
        ablate: Measure ``serving.peers.list_steps`` instead.
        picture: Where pictures go, as SVG; a second one is put beside it; ``None`` for none.

    Returns:
        As ``configs.benchmark.build_benchmark``, with ``stages_us``.

    Raises:
        ValueError: If a service of ours does not start, or the folder is not the bench's.
    """
    peers = list_steps() if ablate else list_peers()
    measured: dict[str, list[Measured]] = {peer.name: [] for peer in peers}
    missing: dict[str, str] = {}
    with prepare_world(config, train=train, num_requests=NUM_REQUESTS) as world:
        # Written here rather than asked for: no service runs yet.
        first = str(world.requests[0].message["transaction_id"])
        answer = make_answer(first, float(world.scores[0]))
        place = PeerWorld(world.config, world.model_folder, answer)
        with show_progress("Measuring services", total=rounds * len(peers)) as advance:
            for _ in range(rounds):
                for peer in peers:
                    try:
                        measured[peer.name].append(_measure(peer, place, world, seconds=seconds))
                    except ValueError as error:
                        missing[peer.name] = str(error)
                    advance(1)
    rows = build_steps(peers, measured) if ablate else build_rows(peers, measured)
    for row in rows:
        if row["name"] in missing and "qps" not in row:
            row["note"] = missing[row["name"]]
    result = build_benchmark(rows, [] if ablate else build_targets(measured))
    result["stages_us"] = _average_stages(measured)
    if picture is not None and not ablate:
        stages = picture.with_stem(f"{picture.stem}-stages")
        for path, text in (
            (picture, plot_peers(rows)),
            (stages, plot_stages(result["stages_us"])),
        ):
            with write_whole(path) as part:
                part.write_text(text, encoding="utf-8")
            result["wrote"].append(str(path))
    return result


def build_rows(peers: Sequence[Peer], measured: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """Make one row per service, of its best round, and one of ours at ``RATE``."""
    best = {name: _pick_best(rounds) for name, rounds in measured.items() if rounds}
    rows = []
    for peer in peers:
        row: Row = {"name": peer.name}
        if peer.name in best:
            row["qps"] = best[peer.name].closed.qps
            for reference, key in ((TEXTBOOK, "ratio_to_textbook"), (UVICORN, "share_of_uvicorn")):
                if reference in best:
                    row[key] = row["qps"] / best[reference].closed.qps
            row |= _describe(best[peer.name], measured[peer.name])
        rows.append(row)
        rows += _describe_open(peer.name, measured[peer.name])
    return rows


def build_steps(peers: Sequence[Peer], measured: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """Make one row per step, with what it gained over the one before."""
    rows: list[Row] = []
    before: float | None = None
    for peer in peers:
        row: Row = {"name": peer.name}
        if measured[peer.name]:
            best = _pick_best(measured[peer.name])
            row["qps"] = best.closed.qps
            row["gain_factor"] = best.closed.qps / before if before else None
            row |= _describe(best, measured[peer.name])
            before = best.closed.qps
        rows.append(row)
    return rows


def build_targets(measured: Mapping[str, Sequence[Measured]]) -> list[BenchTarget]:
    """Hold our service to what was promised; what was not measured is ``None``.

    Throughput and the ratio to the textbook are of the better of one and two workers; the share of
    uvicorn is of one worker, since uvicorn has one.
    """
    qps = {name: _pick_best(rounds).closed.qps for name, rounds in measured.items() if rounds}
    ours = [qps[name] for name in (OURS, OURS_TWO) if name in qps]
    best = max(ours, default=None)
    open_runs = [
        one.open for name in (OURS, OURS_TWO) for one in measured.get(name, ()) if one.open
    ]
    p99_ms = min((_read_ms(run, 99.0) for run in open_runs if _kept_up(run)), default=None)
    differences = [one.difference for rounds in measured.values() for one in rounds]
    return [
        BenchTarget("qps", best, 20_000, "at_least"),
        BenchTarget("p99_ms_at_10000", p99_ms, 10, "at_most"),
        BenchTarget("ratio_to_textbook", _divide(best, qps.get(TEXTBOOK)), 50, "at_least"),
        BenchTarget("share_of_uvicorn", _divide(qps.get(OURS), qps.get(UVICORN)), 0.45, "at_least"),
        BenchTarget(
            "difference_from_champion", max(differences, default=None), MAX_DIFFERENCE, "at_most"
        ),
    ]


def _divide(value: float | None, by: float | None) -> float | None:
    return None if value is None or by is None else value / by


def _kept_up(run: LoadResult) -> bool:
    """Say whether an open loop's latency means anything: asked as planned, and answered."""
    return run.valid and run.accepted >= 0.99 * run.requests


def _pick_best(rounds: Sequence[Measured]) -> Measured:
    return max(rounds, key=lambda one: one.closed.qps)


def _describe(best: Measured, rounds: Sequence[Measured]) -> Row:
    closed = best.closed
    return {
        **_describe_load(closed),
        "qps_per_core": closed.qps / best.cores if best.cores else None,
        "measured": {
            "qps_of_rounds": [one.closed.qps for one in rounds],
            "cores": best.cores,
            "difference": best.difference,
            "doubts": list(closed.why),
        },
    }


def _describe_open(name: str, rounds: Sequence[Measured]) -> list[Row]:
    runs = [one.open for one in rounds if one.open is not None]
    if not runs:
        return []
    best = min(runs, key=lambda run: (not _kept_up(run), _read_ms(run, 99.0)))
    figures = {"p99_ms_of_rounds": [_read_ms(run, 99.0) for run in runs], "doubts": list(best.why)}
    return [{"name": f"{name}, at {RATE:,}/s", **_describe_load(best), "measured": figures}]


def _describe_load(run: LoadResult) -> Row:
    return {
        "qps": run.qps,
        **{f"{name}_ms": _read_ms(run, share) for name, share in PERCENTILES.items()},
        "errors": sum(run.errors.values()) + run.shed,
    }


PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9}


def _read_ms(run: LoadResult, percentile: float) -> float:
    return float(run.latencies.get_value_at_percentile(percentile)) / 1e3


def _measure(peer: Peer, place: PeerWorld, world: ServingWorld, *, seconds: float) -> Measured:
    """Start a service, compare its scores, load it, stop it."""
    bodies = [peer.render(request) for request in world.requests]
    check = ScoreCheck(peer.read_score)
    watch = _CoreCount()
    with peer.start(place, bodies[0]) as url:
        difference = _compare(peer, url, bodies, world) if peer.name != UVICORN else 0.0
        watch.begin()
        target = Target(url, peer.path)
        closed = measure_load(
            target,
            bodies,
            rate=None,
            connections=CONNECTIONS,
            seconds=seconds,
            warm_up_seconds=WARM_UP_SECONDS,
            check=check,
            watch=watch,
        )
        result = Measured(closed, watch.cores, difference)
        if peer.path == "/v1/score" and peer.name != UVICORN:
            result.stages = read_stage_times(url)
            result.open = measure_load(
                target,
                bodies,
                rate=RATE,
                connections=RATE_CONNECTIONS,
                seconds=seconds,
                warm_up_seconds=WARM_UP_SECONDS,
                check=check,
            )
        return result


def _compare(peer: Peer, url: str, bodies: Sequence[bytes], world: ServingWorld) -> float:
    """Ask for some scores one by one; return how far they are from the champion's at most."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        scores = [
            peer.read_score(client.post(peer.path, content=body, headers=headers).content)
            for body in bodies[:NUM_COMPARED]
        ]
    return float(np.max(np.abs(np.array(scores) - world.scores[:NUM_COMPARED])))


class _CoreCount:
    """Counts the processor time of processes that were started after it."""

    def __init__(self) -> None:
        self._before = set(psutil.Process().children(recursive=True))
        self._processes: list[psutil.Process] = []
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """Take the processes that run now and did not before for the service's."""
        found = psutil.Process().children(recursive=True)
        self._processes = [process for process in found if process not in self._before]

    def __call__(self, elapsed: float) -> None:
        """Read the clocks; ``elapsed`` is below zero while the load warms up."""
        if elapsed >= 0.0:
            times = [process.cpu_times() for process in self._processes if process.is_running()]
            used = sum(one.user + one.system for one in times)
            self._first = self._first or (elapsed, used)
            self._last = (elapsed, used)

    @property
    def cores(self) -> float:
        """Processor seconds a second, over the measured time."""
        if self._first is None or self._last[0] <= self._first[0]:
            return 0.0
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])


def _average_stages(measured: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """Take the median over rounds of one worker's microseconds by stage."""
    rounds = [one.stages for one in measured.get(OURS, ()) if one.stages]
    return {
        stage: statistics.median(stages.get(stage, 0.0) for stages in rounds)
        for stage in (rounds[0] if rounds else ())
    }
