from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.client import build_messages, replay_transactions
from serving.fraud_messages import PredictBatchRequest


def make_transactions(*ids: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": list(ids),
            "event_time": pd.to_datetime(["2026-03-01T12:00:00.5Z"] * len(ids)),
            "customer_id": ["ann"] * len(ids),
            "amount": [12.5] * len(ids),
            "ip": [None] * len(ids),
            "latitude": [np.nan] * len(ids),
        }
    )


class FakeService(BaseHTTPRequestHandler):
    """Answers every transaction with a half, and remembers the requests."""

    requests: list[list[str]]
    reverse = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        ids = [message["transaction_id"] for message in body["transactions"]]
        self.requests.append(ids)
        if "refuse" in ids:
            return self.answer(400, {"error": "1 validation error"})
        answered = ids[::-1] if self.reverse else ids
        predictions = [
            {
                "transaction_id": name,
                "score": 0.5,
                "decision": "approve",
                "model_version": "7",
                "reasons": None,
                "degraded_reason": None,
            }
            for name in answered
        ]
        return self.answer(200, {"predictions": predictions})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def run_fake_service(*, reverse: bool = False) -> Iterator[tuple[str, list[list[str]]]]:
    handler = type("Handler", (FakeService,), {"requests": [], "reverse": reverse})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_message_holds_what_is_known_and_puts_other_columns_into_extra():
    rows = make_transactions("t1").assign(V1=[2], V2=[np.nan], bank=["north"])
    assert build_messages(rows) == [
        {
            "transaction_id": "t1",
            "event_time": "2026-03-01T12:00:00.500000+00:00",
            "customer_id": "ann",
            "amount": 12.5,
            "extra": {"V1": 2, "bank": "north"},
        }
    ]


def test_messages_are_what_the_service_takes():
    rows = make_transactions("t1", "t2").assign(V1=np.array([1, 2], dtype="int32"), ip="10.0.0.1")
    body = json.dumps({"transactions": build_messages(rows)})
    assert len(PredictBatchRequest.model_validate_json(body).transactions) == 2


def test_a_replay_announces_each_slice_before_it_sends_it_in_batches_and_keeps_the_order():
    slices = [make_transactions("t1", "t2", "t3"), make_transactions(), make_transactions("t4")]
    log: list[object] = []
    with run_fake_service() as (url, requests):

        def note(transactions: pd.DataFrame) -> None:
            log.append((len(transactions), len(requests)))

        predictions = replay_transactions(url, slices, before_slice=note, batch_rows=2)
    assert requests == [["t1", "t2"], ["t3"], ["t4"]]
    assert log == [(3, 0), (0, 2), (1, 2)]  # rows announced, requests sent before
    assert predictions["transaction_id"].tolist() == ["t1", "t2", "t3", "t4"]
    assert predictions["score"].tolist() == [0.5] * 4


def test_a_replay_of_nothing_has_the_same_columns():
    with run_fake_service() as (url, _):
        predictions = replay_transactions(url, [])
    assert predictions.columns.tolist() == [
        "transaction_id",
        "score",
        "decision",
        "model_version",
        "degraded_reason",
    ]


def test_a_replay_stops_with_what_the_service_said():
    with run_fake_service() as (url, _), pytest.raises(ValueError, match=r"answered 400: .*error"):
        replay_transactions(url, [make_transactions("refuse")])


def test_a_replay_stops_when_answers_belong_to_other_transactions():
    with run_fake_service(reverse=True) as (url, _), pytest.raises(ValueError, match="other tran"):
        replay_transactions(url, [make_transactions("t1", "t2")])


def test_a_replay_to_nobody_says_who_did_not_answer():
    with pytest.raises(ValueError, match="cannot be reached"):
        replay_transactions("http://127.0.0.1:9", [make_transactions("t1")])
