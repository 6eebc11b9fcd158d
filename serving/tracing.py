"""A share of the requests becomes OpenTelemetry spans: one a request, one for each of its stages.

A request that comes with a W3C ``traceparent`` belongs to its caller's trace, and is traced if and
only if the caller's is (the sampled flag); of the others a share is drawn. Spans go to an OTLP
collector where ``OTEL_EXPORTER_OTLP_ENDPOINT`` names one, otherwise to a file of JSON lines. A
thread of its own exports them; a queue that is full drops spans and never makes a request wait.

With a share of 0 there is no tracer at all, so that a lane looks at no header.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

logger = logging.getLogger("bentoml.throughline")

TRACES_FILE = "traces.jsonl"
MAX_FILE_BYTES = 256 * 2**20
"""A file of traces is for looking into; beyond this size further spans are dropped."""
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
OTLP_MODULE = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

Attributes = Mapping[str, str | int | float | bool | None]


def open_tracer(share: float, *, folder: Path) -> Tracer | None:
    """Make what traces a service's requests.

    Args:
        share: How many of the requests that bring no ``traceparent`` are traced, in [0, 1]; at 0
            none is, whatever it brings.
        folder: Where ``traces.jsonl`` is appended to if there is no collector.

    Returns:
        The tracer, or ``None`` if ``share`` is 0.

    Raises:
        ValueError: If a collector is named and the package that speaks to it is not installed.
    """
    return Tracer(_make_exporter(folder), share=share) if share else None


class Tracer:
    """Decide which requests are traced, and export them.

    Args:
        exporter: Where finished spans go, from a thread of the tracer's own.
        share: Of requests without a ``traceparent``, in [0, 1].
        draw: Gives numbers in [0, 1).
    """

    def __init__(
        self, exporter: SpanExporter, *, share: float, draw: Callable[[], float] = random.random
    ) -> None:
        # A provider of our own: BentoML has its settings for the global one.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not to be traced never gets to it
            resource=Resource.create({SERVICE_NAME: "throughline-fraud"}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("throughline")
        self._share = share
        self._draw = draw

    def start(self, headers: Iterable[tuple[bytes, bytes]]) -> RequestTrace | None:
        """Begin a request's trace now, or ``None`` if it is not traced.

        Args:
            headers: The request's, in lower case as ASGI gives them.
        """
        context = _read_parent(headers)
        parent = trace.get_current_span(context).get_span_context()
        is_traced = parent.trace_flags.sampled if parent.is_valid else self._draw() < self._share
        return RequestTrace(self._tracer, context) if is_traced else None

    def close(self) -> None:
        """Export what is left, and stop."""
        self._provider.shutdown()


class RequestTrace:
    """A request on its way; begins when it is made.

    Args:
        tracer: Makes the spans.
        context: Holds the caller's span, if there is one.
    """

    def __init__(self, tracer: trace.Tracer, context: Context) -> None:
        self._tracer = tracer
        self._context = context
        self._start = time.perf_counter_ns()
        # Spans carry wall time; a lane measures with a clock that cannot jump.
        self._wall_offset = time.time_ns() - self._start

    def finish(self, stages: Mapping[str, tuple[int, int]], attributes: Attributes) -> None:
        """End the request now, and hand its spans to the exporter.

        Args:
            stages: When each began and ended, by ``time.perf_counter_ns``. A stage that served a
                whole batch may have begun before this request.
            attributes: ``route``, ``model_version``, ``degraded_reason``, ``decision`` and what
                else is known; those that are ``None`` are left out.
        """
        span = self._tracer.start_span(
            str(attributes.get("route") or "request"),
            context=self._context,
            kind=trace.SpanKind.SERVER,
            attributes={key: value for key, value in attributes.items() if value is not None},
            start_time=self._start + self._wall_offset,
        )
        inside = trace.set_span_in_context(span, self._context)
        for name, (start, end) in stages.items():
            stage = self._tracer.start_span(
                name, context=inside, start_time=start + self._wall_offset
            )
            stage.end(end + self._wall_offset)
        span.end(time.perf_counter_ns() + self._wall_offset)


class FileExporter(SpanExporter):
    """Append spans as JSON, one a line; several processes may append to one file.

    Args:
        file: Made, with its folder, when the first span comes.
        max_bytes: Spans are dropped once the file is larger.
    """

    def __init__(self, file: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.file = file
        self.max_bytes = max_bytes
        self._has_complained = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append the spans in one write, or none of them."""
        lines = "".join(f"{span.to_json(indent=None)}\n" for span in spans)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab", buffering=0) as stream:
                if stream.tell() > self.max_bytes:
                    return self._drop(f"it is larger than {self.max_bytes:,} bytes")
                stream.write(lines.encode())
        except OSError as error:
            return self._drop(str(error))
        return SpanExportResult.SUCCESS

    def _drop(self, reason: str) -> SpanExportResult:
        if not self._has_complained:
            logger.warning("traces are not written to %s: %s", self.file, reason)
            self._has_complained = True
        return SpanExportResult.FAILURE


def _make_exporter(folder: Path) -> SpanExporter:
    named = [variable for variable in ENDPOINT_VARIABLES if os.environ.get(variable)]
    if not named:
        return FileExporter(folder / TRACES_FILE)
    try:
        module = importlib.import_module(OTLP_MODULE)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{named[0]} is set and the exporter is not installed; "
            "run `pip install 'throughline[otlp]'`, or unset it to write a file"
        ) from error
    exporter: SpanExporter = module.OTLPSpanExporter()
    return exporter


def _read_parent(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """Read the caller's span; a ``traceparent`` that is none of the standard's is no parent."""
    for name, value in headers:
        if name == b"traceparent":
            carrier = {"traceparent": value.decode("latin-1")}
            return TraceContextTextMapPropagator().extract(carrier, context=Context())
    return Context()
