"""OpenTelemetry traces. Imported only where tracing is on: it needs the extra `tracing`.

::

    caller's traceparent
      └─ SERVER  bertd.v1.InferenceService/Embed
           ├─ tokenize
           ├─ queue        one for each batch that has texts of the call
           ├─ compute  ──link──> batch   (a trace of its own: it serves many calls, and links back)
           └─ conclude

A stream has one SERVER span, and the stages of each of its messages below it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import bertd
import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bertd_server.scheduling.deduplication import Batch, Submission
from bertd_server.scheduling.lanes import BatchResult
from bertd_server.system.call_metrics import protocol_of

_PARENT = TraceContextTextMapPropagator()
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# What a SERVER span says is the server's fault; the rest is the caller's.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_FAULTS = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)


class Tracing:
    """Begins spans, and sends them away."""

    def __init__(self, calls: TracerProvider, batches: TracerProvider) -> None:
        """Take providers: one of calls, one of batches, which records all that it is given."""
        self._provider = calls
        self._calls = calls.get_tracer("bertd", bertd.__version__)
        self._batches = batches.get_tracer("bertd", bertd.__version__)

    @classmethod
    def to(cls, endpoint: str) -> Tracing:
        """Send spans to a collector by OTLP over gRPC.

        All else is as the `OTEL_*` variables say: headers, certificates, batches, the sampler, the
        service's name. Nothing global is set: a host application keeps its own.

        Args:
            endpoint: such as `http://localhost:4317`; empty for what the variables say.
        """
        return cls.through([BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint or None))])

    @classmethod
    def through(cls, processors: Sequence[SpanProcessor]) -> Tracing:
        """Give spans to processors."""
        resource = Resource({SERVICE_NAME: "bertd", "service.version": bertd.__version__}).merge(
            _from_environment()
        )
        providers = (
            TracerProvider(resource=resource, shutdown_on_exit=False),
            # Asked only about batches with a text of a call that is recorded.
            TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False),
        )
        for provider in providers:
            for processor in processors:
                provider.add_span_processor(processor)
        return cls(*providers)

    def begin(
        self, rpc: str, metadata: Iterable[tuple[str, str | bytes]] | None, request_id: str
    ) -> CallTrace:
        """Begin the span of an RPC below the one in its metadata."""
        carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
        if protocol_of(rpc) == "http":
            named = {"http.route": rpc}
        else:
            service, _, method = rpc.rpartition("/")
            named = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = self._calls.start_span(
            rpc,
            context=_PARENT.extract(carrier, context=Context()),
            kind=SpanKind.SERVER,
            attributes={**named, "bertd.request_id": request_id},
        )
        return CallTrace(span, self._calls, self._batches)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()  # the other one has the same processors


def _from_environment() -> Resource:
    """What `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say, without the SDK's own name."""
    found = Resource.create()
    unnamed = str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return Resource(
        {k: v for k, v in found.attributes.items() if not (unnamed and k == SERVICE_NAME)}
    )


class CallTrace:
    """The span of one RPC."""

    def __init__(self, span: Span, tracer: Tracer, batches: Tracer) -> None:
        self._span = span
        self._tracer = tracer
        self._batches = batches

    @property
    def id(self) -> str:
        """The trace's id in hexadecimal; empty if the trace is not recorded."""
        context = self._span.get_span_context()
        return format_trace_id(context.trace_id) if context.trace_flags.sampled else ""

    def asking(self, model: str, version: str, texts: int) -> QuestionTrace | None:
        """A question begins."""
        if not self._span.is_recording():
            return None
        self._span.set_attributes({"bertd.model": model, "bertd.model_version": version})
        return QuestionTrace(self._span, self._tracer, self._batches, texts)

    def end(self, code: int, reason: str) -> None:
        """The RPC has ended."""
        self._span.set_attribute("rpc.grpc.status_code", code)
        if reason:
            self._span.set_attribute("bertd.reason", reason)
        if code in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, _NAMES.get(code, "")))
        self._span.end()


class QuestionTrace:
    """The stages of one question to a model."""

    def __init__(self, parent: Span, tracer: Tracer, batches: Tracer, texts: int) -> None:
        self._parent = parent
        self._context = set_span_in_context(parent, Context())
        self._tracer = tracer
        self._batches = batches
        self._texts = texts
        self._begin = time.time_ns()
        self._batch: Batch | None = None

    def completed(self, call: Submission, batch: Batch, result: BatchResult) -> None:
        """A text of it was computed; those of one batch come one after the other."""
        if self._batch is batch:
            return
        self._batch = batch
        offset = time.time_ns() - time.monotonic_ns()  # which is the scheduler's clock
        began, ended = (
            offset + round(at * 1e9) for at in (result.began, result.began + result.seconds)
        )
        if batch.span is None:
            batch.span = self._begin_batch(batch, began, ended)
        other: SpanContext = batch.span.get_span_context()
        batch.span.add_link(self._parent.get_span_context())
        self._stage("queue", offset + round(call.arrived * 1e9), began)
        self._stage("compute", began, ended, links=[Link(other)])

    def _begin_batch(self, batch: Batch, began: int, ended: int) -> _BatchSpan:
        span = self._batches.start_span(
            "batch",
            context=Context(),
            start_time=began,
            attributes={
                "bertd.batch.sequences": batch.shape.sequences,
                "bertd.batch.tokens": batch.shape.tokens,
                "bertd.batch.wide": batch.wide,
                "bertd.batch.predicted_seconds": batch.seconds,
            },
        )
        return _BatchSpan(span, ended)

    def end(self, tokenize_ns: int, total_ns: int) -> None:
        """It has its answer."""
        attributes = {"bertd.texts": self._texts}
        self._stage("tokenize", self._begin, self._begin + tokenize_ns, attributes=attributes)
        self._stage("conclude", self._begin + total_ns, time.time_ns())

    def _stage(self, name: str, begin: int, end: int, **more: Any) -> None:
        span = self._tracer.start_span(name, context=self._context, start_time=begin, **more)
        span.end(max(begin, end))


class _BatchSpan:
    """The span of a batch, which ends where the batch did, once all its links are known."""

    def __init__(self, span: Span, ended: int) -> None:
        self.get_span_context = span.get_span_context
        self.add_link = span.add_link
        self._span = span
        self._ended = ended

    def end(self) -> None:
        """All its texts are complete."""
        self._span.end(self._ended)
