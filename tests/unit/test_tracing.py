"""Which requests are traced, and what of them is exported; the standard's own examples are used."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from serving.tracing import ENDPOINT_VARIABLES, FileExporter, Tracer, open_tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = [(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())]
NOT_SAMPLED = [(b"traceparent", f"00-{TRACE}-{SPAN}-00".encode())]
ATTRIBUTES = {
    "route": "/v1/score",
    "model_version": "3",
    "degraded_reason": None,
    "decision": "review",
}


@pytest.fixture(autouse=True)
def _no_collector(monkeypatch):
    for variable in ENDPOINT_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def make_tracer(share: float, exporter: InMemorySpanExporter | None = None, **options) -> Tracer:
    return Tracer(exporter or InMemorySpanExporter(), share=share, **options)


def trace_one(headers, stages=None):
    """Trace one request; return its exported spans by name."""
    exporter = InMemorySpanExporter()
    tracer = make_tracer(1.0, exporter)
    trace = tracer.start(headers)
    trace.finish(stages or {}, ATTRIBUTES)
    tracer.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_with_a_share_of_nothing_there_is_no_tracer(tmp_path):
    assert open_tracer(0.0, folder=tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_requests_without_a_parent_are_traced_by_their_share():
    draws = iter([0.0, 0.24, 0.25, 0.99])
    tracer = make_tracer(0.25, draw=lambda: next(draws))
    assert [tracer.start([]) is not None for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(("headers", "is_traced"), [(SAMPLED, True), (NOT_SAMPLED, False)])
def test_a_parent_decides_whatever_the_share(headers, is_traced):
    for draw in (0.0, 0.9):
        tracer = make_tracer(0.5, draw=lambda draw=draw: draw)
        assert (tracer.start(headers) is not None) is is_traced


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"\xff\xfe",
        f"ff-{TRACE}-{SPAN}-01".encode(),  # a version that is forbidden
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-01-more".encode(),  # version 00 has four parts
        b"0" * 100_000,
    ],
)
def test_a_traceparent_that_is_none_is_as_good_as_absent(value):
    headers = [(b"traceparent", value)]
    assert make_tracer(0.5, draw=lambda: 0.9).start(headers) is None
    (span,) = trace_one(headers).values()
    assert span.parent is None


def test_a_request_belongs_to_its_caller_s_trace():
    (span,) = trace_one([(b"host", b"x"), *SAMPLED]).values()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.kind is SpanKind.SERVER


def test_a_request_carries_what_is_known_of_it_and_nothing_of_what_is_not():
    (span,) = trace_one([]).values()
    assert dict(span.attributes) == {
        "route": "/v1/score",
        "model_version": "3",
        "decision": "review",
    }
    assert span.resource.attributes["service.name"] == "throughline-fraud"


def test_stages_are_inside_the_request_with_the_lengths_measured():
    now = time.perf_counter_ns()
    spans = trace_one(
        [], {"store": (now, now + 900_000), "model": (now + 900_000, now + 1_000_000)}
    )
    request, store, model = spans["/v1/score"], spans["store"], spans["model"]
    assert store.parent.span_id == model.parent.span_id == request.context.span_id
    assert store.end_time - store.start_time == 900_000
    assert model.start_time == store.end_time


def test_spans_carry_the_time_of_the_wall():
    exporter = InMemorySpanExporter()
    tracer = make_tracer(1.0, exporter)
    before = time.time_ns()
    trace = tracer.start([])
    started = time.time_ns()
    now = time.perf_counter_ns()
    trace.finish({"store": (now, now)}, ATTRIBUTES)
    after = time.time_ns()
    tracer.close()
    store, request = exporter.get_finished_spans()
    # Two clocks are read one after the other, so a time may be off by what lies between.
    assert before - 1_000_000 <= request.start_time <= started
    assert before - 1_000_000 <= store.start_time <= request.end_time <= after + 1_000_000


def test_without_a_collector_spans_are_lines_of_json_in_a_file(tmp_path):
    tracer = open_tracer(1.0, folder=tmp_path / "serving")
    for _ in range(2):
        tracer.start(SAMPLED).finish({"store": (1, 2)}, ATTRIBUTES)
    tracer.close()
    lines = (tmp_path / "serving" / "traces.jsonl").read_text().splitlines()
    spans = [json.loads(line) for line in lines]
    assert [span["name"] for span in spans] == ["store", "/v1/score"] * 2
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{TRACE}"}


def test_a_file_that_has_grown_too_large_is_left_as_it_is_and_that_is_said_once(tmp_path, caplog):
    file = tmp_path / "traces.jsonl"
    file.write_bytes(b"x" * 11)
    tracer = Tracer(FileExporter(file, max_bytes=10), share=1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tracer.start([]).finish({}, ATTRIBUTES)
            assert tracer._provider.force_flush()
    tracer.close()
    assert file.read_bytes() == b"x" * 11
    assert [record.message for record in caplog.records if "traces" in record.message] == [
        f"traces are not written to {file}: it is larger than 10 bytes"
    ]


def test_a_folder_that_cannot_be_written_loses_spans_and_nothing_else(tmp_path, caplog):
    (tmp_path / "file").touch()
    tracer = Tracer(FileExporter(tmp_path / "file" / "traces.jsonl"), share=1.0)
    tracer.start([]).finish({}, ATTRIBUTES)
    tracer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (record,) = caplog.records
    assert "traces are not written to" in record.message


def is_otlp_installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(is_otlp_installed(), reason="the otlp extra is installed")
def test_a_collector_without_the_package_that_speaks_to_it_is_refused_with_the_remedy(
    monkeypatch, tmp_path: Path
):
    monkeypatch.setenv(ENDPOINT_VARIABLES[0], "http://127.0.0.1:4318")
    with pytest.raises(ValueError, match=r"pip install 'throughline\[otlp\]'"):
        open_tracer(0.1, folder=tmp_path)


@contextmanager
def serve_on_loopback(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(not is_otlp_installed(), reason="needs the otlp extra")
def test_a_collector_is_sent_the_spans(monkeypatch, tmp_path: Path):
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with serve_on_loopback(Collector) as address:
        monkeypatch.setenv(ENDPOINT_VARIABLES[0], address)
        tracer = open_tracer(1.0, folder=tmp_path)
        tracer.start(SAMPLED).finish({"store": (1, 2)}, ATTRIBUTES)
        tracer.close()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert bytes.fromhex(TRACE) in body
    assert list(tmp_path.iterdir()) == []
