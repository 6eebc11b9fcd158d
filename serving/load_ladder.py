"""Rates that rise until the service cannot follow become its knee: the highest rate that held.

Each rung is an open-loop run of its own. A rung holds if its p99 is within the limit, enough of the
offered rate was answered, and few requests failed or were shed. Where not even the first holds, the
rates fall until one does. Between the last rung that held and the first that did not, the geometric
middle is tried a few times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from configs.sections import LadderSection
from serving.load_result import LoadResult


@dataclass(frozen=True)
class Rung:
    """One rate, what was measured at it, and why it did not hold (empty: it held)."""

    rate: float
    result: LoadResult
    reasons: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the service followed."""
        return not self.reasons

    def describe(self) -> dict[str, Any]:
        """Summarise the rung as JSON; ``more`` is what a terminal's table has no room for."""
        result = self.result
        return {
            "qps": round(result.qps, 1),
            "p50_ms": result.latencies.get_value_at_percentile(50.0) / 1e3,
            "p99_ms": result.latencies.get_value_at_percentile(99.0) / 1e3,
            "errors": sum(result.errors.values()),
            "shed": result.shed,
            "holds": self.holds,
            "more": {
                "offered_qps": round(self.rate, 1),
                "reasons": "; ".join(self.reasons),
                "generator_cpu_share": round(result.cpu_share, 3),
                "generator_was_the_bottleneck": not result.valid,
            },
        }


@dataclass(frozen=True)
class Ladder:
    """Rungs in the order they were tried, and whether Ctrl-C ended the climb."""

    rungs: tuple[Rung, ...]
    interrupted: bool

    @property
    def knee(self) -> Rung | None:
        """The highest rung that held; None if none did."""
        return max((rung for rung in self.rungs if rung.holds), key=_get_rate, default=None)

    @property
    def ceiling(self) -> Rung | None:
        """The lowest rung that did not hold; None if every one did: the knee lies higher."""
        return min((rung for rung in self.rungs if not rung.holds), key=_get_rate, default=None)

    @property
    def why(self) -> tuple[str, ...]:
        """What makes the knee doubtful: a generator that was the bottleneck beside it."""
        beside = (rung for rung in (self.knee, self.ceiling) if rung is not None)
        return tuple(
            f"at {rung.rate:,.0f} requests/s {why}" for rung in beside for why in rung.result.why
        )


def _get_rate(rung: Rung) -> float:
    return rung.rate


def climb(measure: Callable[[float], LoadResult], *, settings: LadderSection) -> Ladder:
    """Measure at rising rates (falling, if the first does not hold), then around the knee.

    Args:
        measure: Runs open loop at a rate, requests a second.
        settings: Where to begin, how fast to rise, what counts as holding.

    Returns:
        The rungs; not more than ``max_rungs`` and ``num_bisections`` of them.
    """
    rungs: list[Rung] = []
    for rate in _choose_rates(rungs, settings):
        try:
            result = measure(rate)
        except KeyboardInterrupt:
            return Ladder(tuple(rungs), interrupted=True)
        if result.interrupted:  # a rung cut short proves nothing
            return Ladder(tuple(rungs), interrupted=True)
        rungs.append(Rung(rate, result, tuple(judge_rung(rate, result, settings=settings))))
    return Ladder(tuple(rungs), interrupted=False)


def _choose_rates(rungs: Sequence[Rung], settings: LadderSection) -> Iterator[float]:
    """Yield the next rate, looking at the rungs measured so far."""
    rate = settings.first_rate
    for _ in range(settings.max_rungs):
        yield rate
        if rungs[-1].holds != rungs[0].holds:
            break
        rate = rate * settings.factor if rungs[0].holds else rate / settings.factor
    for _ in range(settings.num_bisections):
        below = max((rung.rate for rung in rungs if rung.holds), default=None)
        above = min((rung.rate for rung in rungs if not rung.holds), default=None)
        if below is None or above is None or above <= below:
            return
        yield math.sqrt(below * above)


def judge_rung(rate: float, result: LoadResult, *, settings: LadderSection) -> Iterator[str]:
    """Say why the service did not follow at a rate, if it did not."""
    p99_ms = result.latencies.get_value_at_percentile(99.0) / 1e3
    if p99_ms > settings.max_p99_ms:
        yield f"p99 {p99_ms:.1f} ms is above {settings.max_p99_ms:g} ms"
    # Poisson arrivals miss the rate by chance; no more can be answered than was due.
    due_qps = min(rate, result.requests / settings.rung_seconds)
    if result.qps < settings.min_achieved_share * due_qps:
        yield f"answered {result.qps:,.0f} of {rate:,.0f} requests/s"
    failed = (sum(result.errors.values()) + result.shed) / max(result.requests, 1)
    if failed > settings.max_error_share:
        yield f"{failed:.1%} failed or were shed"


def describe_ladder(ladder: Ladder) -> dict[str, Any]:
    """Summarise a ladder as JSON: the knee, and ``rungs`` by offered rate, lowest first."""
    knee, ceiling = ladder.knee, ladder.ceiling
    rungs = sorted(ladder.rungs, key=_get_rate)
    return {
        "knee_qps": None if knee is None else round(knee.rate, 1),
        "knee_p99_ms": None
        if knee is None
        else knee.result.latencies.get_value_at_percentile(99.0) / 1e3,
        "knee_is_a_lower_bound": ceiling is None,
        "beyond_the_knee": [] if ceiling is None else list(ceiling.reasons),
        "rungs": {f"{rung.rate:,.0f}/s": rung.describe() for rung in rungs},
        "valid": not ladder.why,
        "why": list(ladder.why),
        "interrupted": ladder.interrupted,
    }
