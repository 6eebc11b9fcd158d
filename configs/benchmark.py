"""Measured rows and targets become one benchmark result, read alike by a person and a script."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.environment import describe_environment


@dataclass(frozen=True)
class Target:
    """A figure a benchmark is held to.

    Attributes:
        name: What is measured, its unit included, as ``ratio_to_duckdb``.
        value: What this run measured; ``None`` if it could not be measured here.
        target: The limit.
        sense: On which side of the limit the value must be.
    """

    name: str
    value: float | None
    target: float
    sense: Literal["at_least", "at_most"]

    @property
    def is_met(self) -> bool:
        """Whether the value is on the right side of the limit; never, if it was not measured."""
        if self.value is None:
            return False
        return self.value >= self.target if self.sense == "at_least" else self.value <= self.target

    def describe(self) -> dict[str, Any]:
        """Return the verdict as JSON.

        >>> Target("rows_per_second", 5.0, 3.0, "at_least").describe()["met"]
        True
        """
        return {
            "name": self.name,
            "value": self.value,
            self.sense: self.target,
            "target": self.target,
            "met": self.is_met,
        }


def build_benchmark(
    rows: Iterable[Mapping[str, Any]], targets: Iterable[Target], *, next_command: str = ""
) -> dict[str, Any]:
    """Put a benchmark's result together.

    Args:
        rows: One per measured thing; ``name`` says which, units are in the other keys.
        targets: What the rows are held to.
        next_command: What a person may want to run next.

    Returns:
        ``environment``, ``rows``, ``targets``, ``wrote`` (empty) and ``next``.
    """
    return {
        "environment": describe_environment(),
        "rows": [dict(row) for row in rows],
        "targets": [target.describe() for target in targets],
        "wrote": [],
        "next": next_command,
    }


def measure_in_a_process(
    measure: Callable[..., dict[str, float]], /, **arguments: object
) -> dict[str, float]:
    """Run one measurement in a fresh process, so that peaks of memory do not mix.

    Args:
        measure: A module-level function of the keyword arguments; it returns its figures.
        arguments: Handed on; they must pickle.

    Returns:
        What ``measure`` returned, and ``peak_memory_gb`` of its process (10^9 bytes, everything
        the process held, its libraries too).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, measure, arguments).result()


def _measure(
    measure: Callable[..., dict[str, float]], arguments: dict[str, object]
) -> dict[str, float]:
    figures = measure(**arguments)
    return {**figures, "peak_memory_gb": round(_read_peak_kib() * 1024 / 1e9, 3)}


def _read_peak_kib() -> int:
    """Read the most memory this process held; Linux hands ``ru_maxrss`` on from parent to child."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
