"""How many cores the processes of a bench use, by what they are part of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import psutil


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
