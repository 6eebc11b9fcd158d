"""A rate becomes the instants at which requests are due, whatever the service does meanwhile.

The schedule is made before an answer is seen and never waits for one: that is what makes the loop
open. Poisson arrivals are what many independent customers look like; constant ones have no bursts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

Arrivals = Literal["poisson", "constant"]
CHUNK = 1024
"""Gaps drawn at a time: enough to be cheap, few enough that drawing delays no request."""


def draw_arrivals(
    rate: float, *, arrivals: Arrivals, seed: int, process: int = 0, processes: int = 1
) -> Iterator[float]:
    """Draw when requests are due, without end.

    Args:
        rate: Requests a second of all processes together, > 0.
        arrivals: ``poisson``: independent exponential gaps; the processes' schedules together
            are Poisson again. ``constant``: equal gaps, the processes in turn.
        seed: Of the gaps; each process draws its own.
        process: Which of the processes the schedule is for, from 0.
        processes: How many share the rate.

    Yields:
        Seconds from the start, increasing.

    Raises:
        ValueError: If the rate is not positive, or ``arrivals`` is neither of the two.

    >>> times = draw_arrivals(10.0, arrivals="constant", seed=0)
    >>> [round(next(times), 1) for _ in range(3)]
    [0.0, 0.1, 0.2]
    """
    if not rate > 0:
        raise ValueError(f"the rate is {rate}; it must be above 0 requests a second")
    if arrivals == "constant":
        return ((process + count * processes) / rate for count in itertools.count())
    if arrivals == "poisson":
        return _draw_poisson(rate / processes, generator=np.random.default_rng((seed, process)))
    raise ValueError(f"arrivals is '{arrivals}'; it must be poisson or constant")


def _draw_poisson(rate: float, *, generator: np.random.Generator) -> Iterator[float]:
    now = 0.0
    while True:
        times = now + np.cumsum(generator.exponential(1.0 / rate, size=CHUNK))
        now = float(times[-1])
        yield from times.tolist()
