"""What the pipeline bench saw becomes rows, and targets that are met or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from configs.benchmark import Target as BenchTarget
from serving.load_result import LoadResult
from serving.peers import UVICORN
from serving.pipeline_load import Phase
from serving.pipeline_probe import Probe
from serving.pipeline_processors import ProcessorReport

MIN_TX_PER_SECOND = 10_000
MAX_FRESHNESS_SECONDS = 1.0


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


def select_main(measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Select the transactions of the main stretch, the probe's among them included.

    Returns:
        When each was scored, seconds since the stretch began, and its freshness in seconds.
    """
    readable = np.concatenate([report.readable for report in measured.reports])
    freshness = np.concatenate([report.freshness for report in measured.reports])
    scored = readable - freshness - measured.main.started
    is_main = (scored >= 0) & (scored <= measured.main.load.seconds)
    return scored[is_main], freshness[is_main]


def build_rows(
    measured: Measured, ceilings: Sequence[LoadResult], *, rate: float, workers: int
) -> list[dict[str, Any]]:
    """Make a row for the answers, one for the windows, one for the probe, and uvicorn's.

    Args:
        measured: What the run saw.
        ceilings: Plain uvicorn before and after it; the share is of the faster, and at most
            ``rate`` over it.
        rate: That was asked for.
        workers: Of the service.
    """
    whole_rate = _read_whole_rate(measured)
    load, cores = measured.main.load, measured.cores
    _, freshness = select_main(measured)
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
            "tx_per_second": round(whole_rate, 1),
            "share_of_uvicorn": whole_rate / max(ceiling.qps for ceiling in ceilings),
            **_describe_ms(freshness),
            "cores": round(cores.get("processors", 0.0), 2),
            "measured": {"counts": [report.counts for report in measured.reports]},
        },
        {
            "name": "probe: scored, seen in Redis",
            "transactions": len(seen),
            **_describe_ms(np.array(seen)),
        },
        *(
            {
                "name": f"{UVICORN}, {when}",
                "tx_per_second": round(ceiling.qps, 1),
                "errors": sum(ceiling.errors.values()) + ceiling.shed,
                "measured": {"doubts": list(ceiling.why)},
            }
            for when, ceiling in zip(("before", "after"), ceilings, strict=True)
        ),
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
    scored, freshness = select_main(measured)
    if not scored.size:
        return 0.0
    return len(scored) / float((scored + freshness).max() - scored.min())


def build_targets(measured: Measured, verdict: Verdict) -> list[BenchTarget]:
    """Hold the path to what was promised."""
    _, freshness = select_main(measured)
    p99 = float(np.percentile(freshness, 99)) if freshness.size else None
    seen = len(measured.probe.sightings)
    return [
        BenchTarget("tx_per_second", _read_whole_rate(measured), MIN_TX_PER_SECOND, "at_least"),
        BenchTarget("freshness_p99_s", p99, MAX_FRESHNESS_SECONDS, "at_most"),
        BenchTarget("wrong_states", verdict.wrong_states, 0, "at_most"),
        BenchTarget("transactions_lost", verdict.lost, 0, "at_most"),
        BenchTarget("transactions_invented", verdict.invented, 0, "at_most"),
        BenchTarget("dead_letters", verdict.dead_letters, 0, "at_most"),
        BenchTarget("probes_unseen", verdict.unseen if seen else None, 0, "at_most"),
    ]
