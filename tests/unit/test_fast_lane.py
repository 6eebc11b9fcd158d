"""The lane's own routes: statuses, stages and traces; all else is the inner application's."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, values

from serving.fast_lane import FastLane
from serving.lane_metrics import LaneMetrics
from serving.scorer import BATCH_ROWS
from serving.tracing import Tracer
from tests.unit.scorer_world import FakeArtefact, FakeStore, make_scorer

VALID = {
    "transaction_id": "t1",
    "event_time": "2026-03-01T06:00:00Z",
    "customer_id": "ann",
    "amount": 100.0,
}
STAGES = ["decode", "store", "features", "model", "record", "encode"]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module", autouse=True)
def _own_values():
    """Keep values in this process and test: Feast, once imported, has all registries share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.MutexValue)
        yield


class World:
    """A service of a scorer and the lane, around an application that says ``inner``."""

    def __init__(self, tracer: Tracer | None = None, *, artefact: FakeArtefact | None = None):
        self.store = FakeStore({"ann": 2})
        self.scorer = make_scorer(self.store, max_waiting_rows=2000)
        self.scorer.lineup.replace_champion("7", artefact or FakeArtefact())  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.scorer.metrics = LaneMetrics(registry=self.registry)
        self.lane: Any = SimpleNamespace(
            scorer=self.scorer,
            metrics=self.scorer.metrics,
            tracer=tracer,
            extra={"V1": False},
            max_batch_rows=1000,
            max_body_bytes=1_000_000,
        )

    def ask(self, *requests: tuple[str, str, Any], **options: Any) -> list[httpx.Response]:
        """Send (method, path, document) at once."""

        async def inner(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inner"})

        async def play():
            transport = httpx.ASGITransport(FastLane(inner, lambda: self.lane))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                calls = [
                    client.request(method, path, json=body, **options)
                    for method, path, body in requests
                ]
                return await asyncio.gather(*calls)

        return asyncio.run(play())

    def score(self, document: Any = VALID, **options: Any) -> httpx.Response:
        (answer,) = self.ask(("POST", "/v1/score", document), **options)
        return answer

    def score_batch(self, rows: int) -> httpx.Response:
        body = {"transactions": [VALID] * rows}
        (answer,) = self.ask(("POST", "/v1/score_batch", body))
        return answer

    def value(self, name: str, **labels: str) -> float | None:
        self.scorer.metrics.publish()
        return self.registry.get_sample_value(f"throughline_{name}", labels)


def test_a_transaction_is_answered_with_its_score_and_no_more():
    answer = World().score()
    assert answer.status_code == 200
    assert answer.json() == {
        "transaction_id": "t1",
        "score": 0.2,
        "decision": "approve",
        "model_version": "7",
        "degraded_reason": None,
    }


def test_other_paths_are_the_inner_applications():
    (answer,) = World().ask(("GET", "/v1/score/", None))
    assert answer.text == "inner"


@pytest.mark.parametrize("rows", [1, 3, BATCH_ROWS + 1])
def test_a_batch_of_any_size_is_answered_in_order(rows):
    answer = World().score_batch(rows).json()
    assert [each["score"] for each in answer["predictions"]] == [0.2] * rows


@pytest.mark.parametrize(
    ("change", "status", "outcome"),
    [
        ({}, 200, "ok"),
        ({"amount": -1}, 400, "invalid"),
        ({"customer_id": "x" * 1_000_001}, 413, "too_large"),
    ],
)
def test_every_request_is_counted_once_by_its_outcome(change, status, outcome):
    world = World()
    assert world.score({**VALID, **change}).status_code == status
    counted = world.value("requests_total", route="score", outcome=outcome)
    assert counted == 1


def test_a_request_that_is_shed_is_told_when_to_come_back():
    world = World()
    world.scorer.max_waiting_rows = 1
    answers = world.ask(*[("POST", "/v1/score", VALID)] * 3)
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503]
    shed = max(answers, key=lambda answer: answer.status_code)
    assert shed.headers["retry-after"] == "1"
    assert shed.json()["error"].startswith("overloaded: ")


def test_what_fails_inside_is_503_without_a_word_of_it():
    answer = World(artefact=FakeArtefact(error=FloatingPointError("secret"))).score()
    assert answer.status_code == 503
    assert answer.json() == {"error": "the service failed; its log says why"}


@pytest.mark.parametrize("rows", [1, 5, BATCH_ROWS + 1])
def test_every_stage_of_a_batch_is_measured(rows):
    world = World()
    world.score_batch(rows)
    for stage in STAGES:
        assert world.value("stage_seconds_sum", stage=stage) > 0, stage
    assert world.value("batch_rows_sum") == rows


def trace(requests, **options):
    """Answer requests traced; return the spans."""
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter, share=1.0)
    world = World(tracer, artefact=options.pop("artefact", None))
    world.ask(*requests, **options)
    tracer.close()
    return exporter.get_finished_spans()


def test_a_traced_request_has_a_span_for_each_stage_in_order_inside_its_own():
    *stages, whole = trace([("POST", "/v1/score", VALID)])
    assert [span.name for span in stages] == STAGES
    assert whole.attributes["route"] == "/v1/score"
    assert whole.attributes["outcome"] == "ok"
    assert whole.attributes["model_version"] == "7"
    assert whole.attributes["decision"] == "approve"
    times = [whole.start_time]
    for span in stages:
        assert span.parent.span_id == whole.context.span_id
        times += [span.start_time, span.end_time]
    times.append(whole.end_time)
    assert times == sorted(times)


def test_requests_of_one_batch_have_their_own_decoding_and_share_the_batchs_stages():
    spans = trace([("POST", "/v1/score", VALID)] * 3)
    starts = {
        stage: {span.start_time for span in spans if span.name == stage}
        for stage in ("decode", "store", "encode")
    }
    assert len(starts["decode"]) == 3
    assert max(starts["store"]) - min(starts["store"]) < 100_000  # ns: offsets to wall time differ


def test_a_refused_request_is_traced_without_stages():
    (span,) = trace([("POST", "/v1/score", {"amount": -1})])
    assert span.attributes["outcome"] == "invalid"
    assert "model_version" not in span.attributes


def test_a_batch_names_its_rows_and_no_decision():
    body = {"transactions": [VALID] * 3}
    *_, whole = trace([("POST", "/v1/score_batch", body)])
    assert whole.attributes["rows"] == 3
    assert "decision" not in whole.attributes


def test_a_callers_trace_goes_on():
    header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    spans = trace([("POST", "/v1/score", VALID)], headers=header)
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}


class Untouchable(list):
    """Headers that may be searched for a content type, and nothing else."""

    def __iter__(self):
        raise AssertionError("a header was looked at")


def test_without_a_tracer_no_header_is_looked_at_but_the_content_type():
    world, sent = World(), []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/score",
        "headers": Untouchable([(b"content-type", b"application/json")]),
    }

    async def receive():
        return {"type": "http.request", "body": json.dumps(VALID).encode()}

    async def send(message):
        sent.append(message)

    asyncio.run(FastLane(send, lambda: world.lane)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 200
