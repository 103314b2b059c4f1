"""Load reports (ORCA), by which balancers give a freer server more calls.

::

    call ends ──> Load: rates of calls, failures and compute, beside the predicted wait ──> report
                    ├──> trailer endpoint-load-metrics-bin of the call
                    └──> OpenRcaService.StreamCoreMetrics, every few seconds

https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bertd_server.errors import Overloaded
from bertd_server.models.model import Model
from bertd_server.rpc import status as statuses
from bertd_server.rpc.interceptors.handlers import WrappingInterceptor, wrapped
from bertd_server.rpc.status import LOAD_REPORT

SERVICE = "xds.service.orca.v3.OpenRcaService"
LEAST_INTERVAL = 1.0  # seconds between two reports of a stream
MOST_STREAMS = 4_096  # at once, of all clients

_KEPT_SECONDS = 0.1  # a report is as old as that at most
_MEMORY_SECONDS = 2.0  # what is older counts for less than a third in the rates
_LEAST = 0.01  # gRPC leaves a server that reports no utilisation out of the weighing
# An answer of these codes says that the server, not the request, was at fault.
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
    }
)

# A pool of its own: programs that have the xDS packages too register the same names in the default.
POOL = DescriptorPool()


def _file(name: str, package: str, **more: Any) -> FileDescriptorProto:
    return FileDescriptorProto(name=name, package=package, syntax="proto3", **more)


def _field(name: str, number: int, kind: FieldDescriptorProto.Type.ValueType) -> Any:
    return {"name": name, "number": number, "type": kind, "label": "LABEL_OPTIONAL"}


_DOUBLE, _MESSAGE = FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_MESSAGE
_REPORT = "xds.data.orca.v3.OrcaLoadReport"
_REQUEST = "xds.service.orca.v3.OrcaLoadReportRequest"
_REPORT_FILE = "xds/data/orca/v3/orca_load_report.proto"
_SERVICE_FILE = "xds/service/orca/v3/orca.proto"
POOL.AddSerializedFile(duration_pb2.DESCRIPTOR.serialized_pb)
POOL.Add(
    _file(
        _REPORT_FILE,
        "xds.data.orca.v3",
        message_type=[
            {
                "name": "OrcaLoadReport",
                "field": [
                    _field("rps_fractional", 6, _DOUBLE),
                    _field("eps", 7, _DOUBLE),
                    _field("application_utilization", 9, _DOUBLE),
                ],
            }
        ],
    )
)
POOL.Add(
    _file(
        _SERVICE_FILE,
        "xds.service.orca.v3",
        dependency=["google/protobuf/duration.proto", _REPORT_FILE],
        message_type=[
            {
                "name": "OrcaLoadReportRequest",
                "field": [
                    {
                        **_field("report_interval", 1, _MESSAGE),
                        "type_name": ".google.protobuf.Duration",
                    }
                ],
            }
        ],
        service=[
            {
                "name": "OpenRcaService",
                "method": [
                    {
                        "name": "StreamCoreMetrics",
                        "input_type": f".{_REQUEST}",
                        "output_type": f".{_REPORT}",
                        "server_streaming": True,
                    }
                ],
            }
        ],
    )
)
Report: type[Message] = GetMessageClass(POOL.FindMessageTypeByName(_REPORT))
Request: type[Message] = GetMessageClass(POOL.FindMessageTypeByName(_REQUEST))


@dataclass(slots=True)
class Rate:
    """A sum per second, in which what is older counts for less."""

    _sum: float = 0.0
    _at: float = -math.inf

    def add(self, amount: float, now: float) -> None:
        """Count what happened at a time."""
        self._sum, self._at = self._left(now) + amount, now

    def at(self, now: float) -> float:
        """The rate at a time, per second."""
        return self._left(now) / _MEMORY_SECONDS

    def _left(self, now: float) -> float:
        return self._sum * math.exp(min(0.0, self._at - now) / _MEMORY_SECONDS)


def utilisation(computing: float, lanes: int, wait: float, most: float) -> float:
    """How loaded a server is: 0.01 idle, 1 all lanes compute, above that seconds of queue.

    Args:
        computing: seconds of compute per second, of all lanes together.
        lanes: those alive; without any the server is as loaded as it can be.
        wait: predicted seconds until a text that arrived now would start.
        most: such seconds at which calls are refused.
    """
    share = min(1.0, computing / lanes) if lanes else 1.0
    return max(_LEAST, share + min(wait, most))


@dataclass(slots=True)
class Load:
    """What a server reports of itself. Use it on one event loop.

    Attributes:
        models: those that answer now; of several, all share the lanes.
        most_wait: seconds of predicted wait at which calls are refused.
        clock: monotonic seconds.
    """

    models: Callable[[], Collection[Model]]
    most_wait: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    _calls: Rate = field(default_factory=Rate)
    _faults: Rate = field(default_factory=Rate)
    _compute: Rate = field(default_factory=Rate)
    _computed: float = 0.0
    _made: float = -math.inf
    _report: bytes = b""

    def began(self) -> None:
        """Count a call."""
        self._calls.add(1, self.clock())

    def failed(self) -> None:
        """Count a call that failed by the server's fault."""
        self._faults.add(1, self.clock())

    def report(self) -> bytes:
        """An OrcaLoadReport, at most 0.1 s old."""
        now = self.clock()
        if now - self._made >= _KEPT_SECONDS:
            self._report, self._made = self._measure(now).SerializeToString(), now
        return self._report

    def used(self, now: float) -> float:
        """How loaded the server is; its rate of compute is counted by whoever asks."""
        models = self.models()
        computed = sum(model.statistics.compute.total for model in models)
        self._compute.add(max(0.0, computed - self._computed), now)  # less: a model has gone
        self._computed = computed
        gauges = [model.gauges() for model in models]
        return utilisation(
            self._compute.at(now),
            max((one.lanes_alive for one in gauges), default=0),
            max((one.predicted_wait for one in gauges), default=0.0),
            self.most_wait(),
        )

    def _measure(self, now: float) -> Message:
        return Report(
            rps_fractional=self._calls.at(now),
            eps=self._faults.at(now),
            application_utilization=self.used(now),
        )


class LoadInterceptor(WrappingInterceptor):
    """Counts calls, and puts a report into the trailers of each, failed ones included."""

    def __init__(self, load: Load, methods: Collection[str]) -> None:
        """Take what is reported, and the paths of the calls that count."""
        super().__init__(methods)
        self._load = load

    def wrap(self, method: str, handler: Any) -> Any:  # noqa: ARG002 - all methods alike
        """Report with each call of a method."""
        return wrapped(handler, within=self._reported)

    @contextmanager
    def _reported(self, context: Any) -> Iterator[None]:
        self._load.began()
        self._tell(context)  # as an abort, which comes before the end, finds it
        try:
            yield
        except Exception:
            code = context.code()
            if not code or code in _FAULTS:  # none: it ends as UNKNOWN
                self._load.failed()
            raise
        self._tell(context)

    def _tell(self, context: Any) -> None:
        others = [one for one in context.trailing_metadata() or () if one[0] != LOAD_REPORT]
        context.set_trailing_metadata((*others, (LOAD_REPORT, self._load.report())))


def interceptors(load: Load | None, methods: Collection[str]) -> list[grpc.aio.ServerInterceptor]:
    """What calls of these methods pass; nothing where no load is reported."""
    return [] if load is None else [LoadInterceptor(load, methods)]


class ReportStreams:
    """StreamCoreMetrics; use it on one event loop.

    A stream needs no key and lasts as long as its client wants: hence a limit.
    """

    def __init__(self, load: Load, closing: asyncio.Event) -> None:
        """Take what is reported; streams end once `closing` is set."""
        self._load = load
        self._closing = closing
        self._open = 0

    async def report(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        """Send a report now, then as often as is asked, once a second at most."""
        if self._open >= MOST_STREAMS:
            await statuses.abort(context, self._too_many())
        wanted = request.report_interval.seconds + request.report_interval.nanos / 1e9
        self._open += 1
        try:
            while not self._closing.is_set():
                yield self._load.report()
                try:
                    await asyncio.wait_for(self._closing.wait(), max(LEAST_INTERVAL, wanted))
                except TimeoutError:
                    continue
        finally:
            self._open -= 1

    def _too_many(self) -> Overloaded:
        return Overloaded(
            f"{self._open} calls of StreamCoreMetrics are open, as many as may be: close some, or "
            f"read the trailer {LOAD_REPORT} of each call",
            reason="load_report_streams",
            retry_after_seconds=LEAST_INTERVAL,
        )


def add_service(load: Load | None, closing: asyncio.Event, server: grpc.aio.Server) -> list[str]:
    """Serve StreamCoreMetrics, which ends when `closing` is set; the names of services added."""
    if load is None:
        return []
    streams = ReportStreams(load, closing)
    handler: Any = grpc.unary_stream_rpc_method_handler(streams.report, Request.FromString)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"StreamCoreMetrics": handler}),)
    )
    return [SERVICE]
