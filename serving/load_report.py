"""What a load run saw becomes a summary a person can defend, and a picture of its tail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from configs.files import write_whole

CAVEAT = (
    "closed loop: every connection waits for its answer, so latency under overload is understated "
    "(coordinated omission)"
)
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
MAX_LATENCY_US = 120_000_000
BUSY_GENERATOR_SHARE = 0.8
"""Above this share of one core the generator itself may have been the bottleneck."""


@dataclass
class Measurement:
    """What a load run saw.

    Attributes:
        latencies: Microseconds of the requests that were answered, right or wrong.
        errors: How many answers were wrong, by kind; connection failures included.
        model_versions: How many answers came from each.
        degraded: How many answers lacked history.
        requests: How many were sent, warm-up excluded.
        seconds: From the first of them to the last answer.
        generator_cpu_seconds: Processor time this process used meanwhile.
        timed_out: Whether the time limit ended the run before all requests were sent.
    """

    latencies: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, MAX_LATENCY_US, 3))
    errors: Counter[str] = field(default_factory=Counter)
    model_versions: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    requests: int = 0
    seconds: float = 0.0
    generator_cpu_seconds: float = 0.0
    timed_out: bool = False


def describe_load(measured: Measurement) -> dict[str, Any]:
    """Summarise a measurement as JSON; latencies in milliseconds."""
    share = measured.generator_cpu_seconds / max(measured.seconds, 1e-9)
    latencies = measured.latencies
    return {
        "requests": measured.requests,
        "errors": sum(measured.errors.values()),
        "errors_by_kind": dict(measured.errors),
        "degraded": measured.degraded,
        "seconds": round(measured.seconds, 3),
        "qps": round(measured.requests / max(measured.seconds, 1e-9), 1),
        **{
            f"p{f'{percentile:g}'.replace('.', '_')}_ms": latencies.get_value_at_percentile(
                percentile
            )
            / 1e3
            for percentile in PERCENTILES
        },
        "max_ms": latencies.get_max_value() / 1e3,
        "model_versions": dict(measured.model_versions),
        "timed_out": measured.timed_out,
        "generator_cpu_share": round(share, 3),
        "generator_was_busy": share > BUSY_GENERATOR_SHARE,
        "caveat": CAVEAT,
    }


def plot_latency(path: Path, latencies: HdrHistogram) -> None:
    """Draw latency by percentile, the tail stretched as 1 / (1 - p), to an SVG."""
    from matplotlib.figure import Figure

    nines = np.linspace(0.0, 3.0, 61)
    percentiles = 100.0 * (1.0 - 10.0**-nines)
    values = [latencies.get_value_at_percentile(percentile) / 1e3 for percentile in percentiles]
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(nines, values)
    axes.set_xticks(range(4), ["0 %", "90 %", "99 %", "99.9 %"])
    axes.set(xlabel="share of requests answered within", ylabel="latency (ms)", ylim=(0, None))
    axes.set_title("Latency by percentile, closed loop", loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    with write_whole(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
