"""The fraud service under Locust, for people who know Locust (https://locust.io).

``pip install locust``, start the service with ``throughline fraud serve``, then
``locust --host http://127.0.0.1:3000 --users 64 --spawn-rate 64 --run-time 30s --headless``.
``THROUGHLINE_RUNS`` names the runs folder with the transactions, ``THROUGHLINE_PATH`` the lane.

Locust's users wait for their answers (a closed loop), so under overload its percentiles leave out
the requests that would have waited; ``throughline fraud load --rate`` does not.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from locust import FastHttpUser, constant, events, task

from configs.schema import load_fraud_config
from data.fraud import load_transactions
from serving.load_address import check_may_be_loaded
from serving.load_http import SERIAL_FIELD
from serving.load_messages import check_answer, draw_messages, make_id_prefix, render_bodies

if TYPE_CHECKING:
    from locust.env import Environment

HEADERS = {"Content-Type": "application/json"}


class Requests:
    """Bodies of real past transactions, in turn, each with an id of its own."""

    def __init__(self) -> None:
        config = load_fraud_config()
        runs = Path(os.environ.get("THROUGHLINE_RUNS", config.runs))
        messages = draw_messages(
            load_transactions(runs), num_messages=config.load.rows, seed=os.getpid()
        )
        self.path = os.environ.get("THROUGHLINE_PATH", config.load.path)
        self._id_prefix = make_id_prefix()
        bodies = render_bodies(messages, path=self.path, id_prefix=self._id_prefix)
        self._numbered = enumerate(itertools.cycle(bodies))

    def make(self) -> tuple[bytes, str]:
        """Return the next body and its transaction id."""
        number, body = next(self._numbered)
        serial = b"%016d" % number
        return body.replace(SERIAL_FIELD, serial, 1), self._id_prefix + serial.decode()


@events.test_start.add_listener
def prepare(environment: Environment, **_: object) -> None:
    """Refuse any machine but this one, and render the requests once for all users."""
    check_may_be_loaded(environment.host or "")
    FraudClient.requests = Requests()


class FraudClient(FastHttpUser):
    """Asks for one score after the other and checks each answer."""

    wait_time = constant(0)
    requests: Requests

    @task
    def ask(self) -> None:
        """Send one transaction."""
        body, transaction_id = self.requests.make()
        with self.client.post(
            self.requests.path, data=body, headers=HEADERS, catch_response=True
        ) as answer:
            error = check_answer(answer.status_code, answer.content or b"", transaction_id)
            if error is None:
                answer.success()
            else:
                answer.failure(error)
