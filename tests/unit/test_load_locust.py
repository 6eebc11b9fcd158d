"""The file for Locust's users works with what it takes of Locust, which is not installed here."""

from __future__ import annotations

import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

LOCUSTFILE = Path(__file__).parents[2] / "locustfile.py"


class Response(SimpleNamespace):
    def success(self) -> None:
        self.verdict = "success"

    def failure(self, kind: str) -> None:
        self.verdict = kind


class Client:
    """Answers well, or with another's id, and remembers what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.answers: list[Response] = []
        self.is_wrong = False

    def post(self, path: str, *, data: bytes, **_: object) -> nullcontext[Response]:
        assert path.startswith("/")
        body = json.loads(data)
        transaction = body.get("transaction", body)
        self.bodies.append(transaction)
        answer = {
            "transaction_id": "other" if self.is_wrong else transaction["transaction_id"],
            "score": 0.5,
            "decision": "review",
            "model_version": "1",
            "degraded_reason": None,
        }
        self.answers.append(Response(status_code=200, content=json.dumps(answer).encode()))
        return nullcontext(self.answers[-1])


@pytest.fixture
def locustfile(monkeypatch, tmp_path) -> dict[str, object]:
    pd.DataFrame(
        {
            "transaction_id": ["t1"],
            "event_time": pd.to_datetime(["2026-03-01T12:00:00Z"]),
            "customer_id": ["ann"],
            "amount": [12.5],
        }
    ).to_parquet(tmp_path / "transactions.parquet")
    monkeypatch.setenv("THROUGHLINE_RUNS", str(tmp_path))
    locust = ModuleType("locust")
    test_start = SimpleNamespace(add_listener=lambda function: function)
    vars(locust).update(
        FastHttpUser=object,
        constant=lambda seconds: seconds,
        task=lambda function: function,
        events=SimpleNamespace(test_start=test_start),
    )
    monkeypatch.setitem(sys.modules, "locust", locust)
    return runpy.run_path(str(LOCUSTFILE))


def test_its_users_send_transactions_with_ids_of_their_own_and_check_the_answers(locustfile):
    locustfile["prepare"](SimpleNamespace(host="http://127.0.0.1:3000"))
    user = locustfile["FraudClient"]()
    user.client = Client()
    user.ask()
    user.client.is_wrong = True
    user.ask()
    first, second = user.client.bodies
    assert first["customer_id"] == "ann"
    assert first["transaction_id"] != second["transaction_id"]
    assert [answer.verdict for answer in user.client.answers] == ["success", "wrong transaction id"]


def test_it_refuses_any_other_machine(locustfile):
    with pytest.raises(ValueError, match="only goes to this machine"):
        locustfile["prepare"](SimpleNamespace(host="http://example.com"))
