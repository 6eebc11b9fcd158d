"""What a load worker is told and what it reports: plain values that cross a process boundary."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from serving.load_histogram import NUM_BUCKETS, Counts
from serving.load_schedule import Arrivals


@dataclass(frozen=True)
class Target:
    """What is asked: ``url`` as ``http://127.0.0.1:3000``, ``path`` as ``/v1/score``."""

    url: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header has them."""
        parts = urlsplit(self.url)
        host = parts.hostname or "127.0.0.1"
        return f"[{host}]:{parts.port or 80}" if ":" in host else f"{host}:{parts.port or 80}"

    def look_up(self) -> tuple[str, int]:
        """Look the address and port up, IPv4 before IPv6.

        Raises:
            ValueError: If no machine has this name.
        """
        parts = urlsplit(self.url)
        host = parts.hostname or "127.0.0.1"
        try:
            found = socket.getaddrinfo(host, parts.port or 80, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"no machine is called '{host}' ({error.strerror})") from error
        address = min(found, key=lambda entry: entry[0] != socket.AF_INET)[4]
        return str(address[0]), int(address[1])


class Check(Protocol):
    """Looks at every answer of status 200; each worker has a copy of its own.

    Attributes:
        tallies: What was counted besides errors, by subject and kind, as
            ``{"model_version": {"7": 120}}``; added up over the workers at the end.
    """

    tallies: dict[str, Counter[str]]

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:
        """Say what is wrong with the answer in a few words, or None.

        Args:
            body: Of the answer.
            row: Which of the bodies was sent.
            serial: What stood in its ``SERIAL_FIELD``.
        """


@dataclass(frozen=True)
class Plan:
    """One worker's part of a load run; ``rate`` is that of all, ``connections`` its own.

    ``address`` is where the target was found, looked up once: no worker asks for a name under load.
    """

    target: Target
    address: tuple[str, int]
    bodies: Sequence[bytes]
    rate: float | None
    arrivals: Arrivals
    connections: int
    process: int
    processes: int
    seconds: float
    warm_up_seconds: float
    num_requests: int | None
    seed: int
    check: Check | None
    timeout_seconds: float
    interval_seconds: float

    @property
    def num_intervals(self) -> int:
        """How many intervals the measured time has."""
        return max(int(np.ceil(self.seconds / self.interval_seconds)), 1)


@dataclass
class WorkerReport:
    """What one worker saw after its warm-up.

    Attributes:
        requests: How many were due; each is then accepted, shed or an error.
        accepted: How many were answered with 2xx.
        waited: How many were due when no connection was free.
        latencies: Counts by interval of the due time and bucket, from the due time on.
        failures: How many of them failed, by interval.
        service_times: Counts by bucket, from the real send on.
        send_lags: Counts by bucket, from when a request was due and could leave, to its send.
        began, ended: ``time.perf_counter`` at the end of the warm-up and the last answer.
        cpu_seconds: Processor time of the worker between them.
        cpu_share: The same as a share of one core.
        core_wait_share: Share of the time it was ready to run and had no core; None if unknown.
    """

    latencies: Counts
    failures: Counts
    requests: int = 0
    accepted: int = 0
    shed: int = 0
    waited: int = 0
    reconnects: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, Counter[str]] = field(default_factory=dict)
    service_times: Counts = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.int64))
    send_lags: Counts = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.int64))
    began: float = 0.0
    ended: float = 0.0
    cpu_seconds: float = 0.0
    cpu_share: float = 0.0
    core_wait_share: float | None = None


Floats = npt.NDArray[np.float64]
