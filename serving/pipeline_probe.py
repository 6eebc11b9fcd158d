"""New customers pay twice: is the second payment scored with the first one in its windows?

Neither the publisher's clock nor the processor's is asked: the probe scores a transaction as any
client does, reads the customer's state in the online store until it is there, and scores another.
What the second was scored with is read from the prediction log afterwards.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from features.connections import is_temporary
from features.state_store import StateStore
from serving.prediction_log import load_predictions

PERIOD_SECONDS = 0.4
POLL_SECONDS = 0.002
PATIENCE_SECONDS = 15.0
STATE, COUNT = "customer_events", "customer_tx_count_1h"


@dataclass(frozen=True)
class Sighting:
    """One customer's two payments.

    Attributes:
        first: Transaction id; answered.
        second: Transaction id of the next; ``None`` if it was not sent or not answered.
        seconds: From the answer to the first until the state was there; ``None`` if it never was.
    """

    first: str
    second: str | None
    seconds: float | None


class Probe:
    """Pays, looks and pays again until stopped; used as a context around a load.

    Args:
        url: The service.
        states: The online store, by a connection of the probe's own.
        id_prefix: Of transactions and customers.

    Attributes:
        paid: The transactions that were answered, as messages.
        sightings: What came of them.
    """

    def __init__(self, url: str, states: StateStore, *, id_prefix: str) -> None:
        self.paid: list[dict[str, Any]] = []
        self.sightings: list[Sighting] = []
        self._url = url
        self._states = states
        self._id_prefix = id_prefix
        self._beginning, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def __enter__(self) -> Probe:
        """Get ready to pay."""
        self._thread.start()
        return self

    def begin(self) -> None:
        """Pay from now on."""
        self._beginning.set()

    def __exit__(self, *_: object) -> None:
        """End with the customer in hand."""
        self._stopping.set()
        self._beginning.set()
        self._thread.join()

    def _run(self) -> None:
        self._beginning.wait()
        with httpx.Client(base_url=self._url, timeout=5.0, trust_env=False) as client:
            for number in itertools.count():
                if self._stopping.wait(PERIOD_SECONDS):
                    return
                try:
                    self._pay_twice(client, f"{self._id_prefix}{number}")
                except Exception as error:
                    if not is_temporary(error):
                        raise
                    return  # Ctrl-C ends Redis, too

    def _pay_twice(self, client: httpx.Client, customer: str) -> None:
        first, second = f"{customer}-first", f"{customer}-second"
        if not self._pay(client, customer, first):
            return
        seconds = self._wait_for_state(customer)
        is_answered = seconds is not None and self._pay(client, customer, second)
        self.sightings.append(Sighting(first, second if is_answered else None, seconds))

    def _pay(self, client: httpx.Client, customer: str, transaction_id: str) -> bool:
        message = {
            "transaction_id": transaction_id,
            "event_time": datetime.now(UTC).isoformat(),
            "customer_id": customer,
            "amount": 10.0,
        }
        try:
            is_answered = client.post("/v1/score", json=message).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
        if is_answered:
            self.paid.append(message)
        return is_answered

    def _wait_for_state(self, customer: str) -> float | None:
        started = time.perf_counter()
        while time.perf_counter() - started < PATIENCE_SECONDS:
            (state,) = self._states.read({"customer_id": [customer]}, [STATE])[STATE]
            if state is not None:
                return time.perf_counter() - started
            time.sleep(POLL_SECONDS)
        return None


def count_unseen(sightings: Sequence[Sighting], predictions: Path) -> int:
    """Count the customers whose first payment never came to be known.

    That is: it never was in the online store; or it was, and the second payment was scored without
    it, though nothing was amiss. A second payment that got no answer, or one that says it lacks
    its history, tells nothing.

    Args:
        sightings: Of a stopped probe.
        predictions: The folder of the prediction log, once the service has written all of it.
    """
    scored, features = load_predictions(predictions)
    counts = dict(zip(scored["transaction_id"], features[COUNT], strict=True))
    degraded = set(scored.loc[scored["degraded_reason"].notna(), "transaction_id"])
    return sum(
        one.seconds is None
        or (one.second is not None and one.second not in degraded and counts[one.second] != 1)
        for one in sightings
    )


def build_paid(probe: Probe) -> pd.DataFrame:
    """Return the probe's transactions in the contract's columns; without any if there is none."""
    paid = pd.DataFrame(probe.paid)
    if paid.empty:
        return paid
    times = pd.to_datetime(paid["event_time"], utc=True, format="ISO8601")
    return paid.assign(event_time=times.dt.as_unit("us"))
