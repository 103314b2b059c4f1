"""What the tests of observability share: pages over HTTP, a collector of spans."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.message import Message
from typing import Any

import grpc
from helpers.patience import PATIENCE
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def get(
    address: str, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, Message, bytes]:
    """Status, headers and body of a page."""
    asked = urllib.request.Request(
        f"http://{address}{path}", method=method, headers=dict(headers or {})
    )
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def scrape(address: str) -> list[Any]:
    """All metric families, as Prometheus's own parser reads them."""
    status, _, body = get(address, "/metrics")
    assert status == 200, body
    return list(text_string_to_metric_families(body.decode()))


def samples(families: list[Any]) -> list[Sample]:
    """Of all families."""
    return [sample for family in families for sample in family.samples]


def value(families: list[Any], name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    return sum(
        sample.value
        for sample in samples(families)
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Collector(services.TraceServiceServicer):
    """An OpenTelemetry collector: keeps what it is sent.

    Attributes:
        spans: in the order of arrival.
        resources: attributes of whoever sent them.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: dict[str, str] = {}
        self._lock = threading.Lock()

    def Export(  # noqa: N802 - the RPC's name
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        del context
        with self._lock:
            for group in request.resource_spans:
                for attribute in group.resource.attributes:
                    self.resources[attribute.key] = attribute.value.string_value
                for scope in group.scope_spans:
                    self.spans.extend(scope.spans)
        return pb.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector on a free port, and its endpoint."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add: Any = services.add_TraceServiceServicer_to_server  # it has no types
    add(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()
