"""Transactions drawn from the past are sent to the service, each once; answers are noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import pandas as pd

from configs.progress import show_progress
from serving.load_messages import FraudAnswer
from serving.load_plan import Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.pipeline_world import draw_coming, render_transactions

ID_PREFIX = "pipeline-"
CONNECTIONS = 256
TIMEOUT_SECONDS = 120.0
"""Long, so that a path that cannot follow answers all the same: one that was given up may have been
scored, and nobody could say what the states should hold."""
SPARE_SHARE, SPARE_ROWS = 0.05, 500
"""Bodies beyond ``rate`` times the seconds, since arrivals are random and none is sent twice."""


@dataclass(frozen=True)
class Phase:
    """One stretch of the load.

    Attributes:
        started: When the first request could be due, seconds since 1970.
        load: What the generator saw.
        accepted: The transactions that were answered with 200.
    """

    started: float
    load: LoadResult
    accepted: pd.DataFrame


def load_phase(
    url: str,
    *,
    history: pd.DataFrame,
    rate: float,
    seconds: float,
    name: str,
    on_begin: Sequence[Callable[[], None]] = (),
) -> Phase:
    """Send different transactions of this instant at a rate, open loop.

    Args:
        url: The service.
        history: Where the transactions are drawn from.
        rate: Transactions a second.
        seconds: How long.
        name: Of the phase; part of its transactions' ids.
        on_begin: Called, soon after the first transaction was due.

    Raises:
        KeyboardInterrupt: If the load was.
    """
    prefix = f"{ID_PREFIX}{name}-"
    coming = draw_coming(
        history,
        rate=rate,
        num_rows=int(rate * seconds * (1 + SPARE_SHARE)) + SPARE_ROWS,
        seed=len(prefix),
        id_prefix=prefix,
    )
    bodies = render_transactions(coming)
    started: list[float] = []

    def watch(elapsed: float) -> None:
        if elapsed >= 0 and not started:
            started.append(time.time() - elapsed)
            for begin in on_begin:
                begin()

    with show_progress(f"Load at {rate:,.0f} transactions/s, {name}"):
        result = measure_load(
            Target(url, "/v1/score"),
            bodies,
            rate=rate,
            connections=CONNECTIONS,
            seconds=seconds,
            warm_up_seconds=0.0,
            timeout_seconds=TIMEOUT_SECONDS,
            check=AcceptedCheck(prefix),
            watch=watch,
        )
    if result.interrupted:
        raise KeyboardInterrupt
    accepted = result.tallies.get("accepted", Counter())
    assert max(accepted.values(), default=1) == 1, "a transaction was sent twice"
    return Phase(started[0], result, coming[coming["transaction_id"].isin(accepted.keys())])


class AcceptedCheck:
    """Notes which transactions were answered (see ``load_plan.Check``).

    Attributes:
        tallies: ``accepted`` by transaction id, ``degraded_reason`` by reason.
    """

    def __init__(self, id_prefix: str) -> None:
        self.tallies: dict[str, Counter[str]] = {
            "accepted": Counter(),
            "degraded_reason": Counter(),
        }
        self._id_prefix = id_prefix
        self._decode = msgspec.json.Decoder(FraudAnswer).decode

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what it was made of: a decoder cannot be."""
        return AcceptedCheck, (self._id_prefix,)

    def __call__(self, body: bytes, *, row: int, serial: bytes) -> str | None:  # noqa: ARG002
        """Say what is wrong with an answer of status 200, or None."""
        transaction_id = f"{self._id_prefix}{row}"
        self.tallies["accepted"][transaction_id] += 1
        answer = self._decode(body)
        if answer.degraded_reason is not None:
            self.tallies["degraded_reason"][answer.degraded_reason] += 1
        return None if answer.transaction_id == transaction_id else "wrong transaction id"
