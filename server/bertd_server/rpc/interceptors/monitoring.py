"""Monitors every RPC from outside: counted, and with an id, a line in the log, a span, if wanted.

::

    RPC ──> monitored ──> other interceptors ──> behaviour
              └── at its end: RpcCounts, access log, span

A server that has nothing to count, log or trace does not have this interceptor at all.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Container
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

import grpc

from bertd_server.rpc.interceptors.handlers import WrappingInterceptor, behaviour_of, wrapped
from bertd_server.system.call_metrics import (
    CURRENT,
    REQUEST_ID,
    RpcCounts,
    RpcRecord,
    RpcTrace,
    given_id,
    made_id,
)

_OK = grpc.StatusCode.OK.value[0]
_CANCELLED = grpc.StatusCode.CANCELLED.value[0]
_UNKNOWN = grpc.StatusCode.UNKNOWN.value[0]
# Probes, reflection, channelz: counted, but not worth a line or a span each.
_STANDARD = "/grpc."


class Logs(Protocol):
    """What writes the access log."""

    @property
    def texts(self) -> bool:
        """Whether lines have what was asked."""

    def write(self, record: RpcRecord, code: int) -> None:
        """Write the line of an RPC, or leave it out."""


class Traces(Protocol):
    """What begins the span of an RPC."""

    def begin(self, rpc: str, metadata: Any, request_id: str) -> RpcTrace:
        """Begin it, below the caller's."""


class MonitoringInterceptor(WrappingInterceptor):
    """Stands before all other interceptors, so that what they refuse is seen too."""

    def __init__(
        self,
        counts: RpcCounts,
        methods: Container[str],
        logs: Logs | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Take what wants to know; without log and traces an RPC is merely counted.

        Args:
            counts: of RPCs.
            methods: paths of those that there are. Others are refused, perhaps by an interceptor,
                and leave nothing behind: their names are as many as a stranger makes up.
            logs: the access log.
            traces: begins spans.
        """
        super().__init__(methods)
        self._counts = counts
        self._logs = logs
        self._traces = traces

    def wrap(self, method: str, handler: Any) -> Any:
        """Monitor the calls of a method, as long as they are asynchronous."""
        behaviour = behaviour_of(handler)
        if not (inspect.isasyncgenfunction(behaviour) or inspect.iscoroutinefunction(behaviour)):
            return handler
        rpc, full = method[1:], not method.startswith(_STANDARD)
        whole = full and (self._logs is not None or self._traces is not None)
        return wrapped(handler, within=lambda context: _Monitored(self, rpc, context, whole=whole))

    def around(self, rpc: str, context: Any) -> AbstractContextManager[None]:
        """What goes around a call that is no RPC of gRPC's, but has as much of its context."""
        whole = self._logs is not None or self._traces is not None
        return _Monitored(self, rpc, context, whole=whole)

    def begin(self, rpc: str, context: Any) -> RpcRecord:
        """Record an RPC whose log or trace somebody wants."""
        metadata = context.invocation_metadata()
        request_id = given_id(metadata) or made_id()
        record = RpcRecord(
            request_id,
            rpc,
            context.peer(),
            self._traces.begin(rpc, metadata, request_id) if self._traces else None,
            keep_inputs=self._logs is not None and self._logs.texts,
        )
        CURRENT.set(record)  # each RPC has a task of its own
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        return record

    def end(self, record: RpcRecord, code: int) -> None:
        """Log and trace how it ended."""
        if record.trace is not None:
            record.trace.end(code, record.reason)
        if self._logs is not None:
            self._logs.write(record, code)

    def started(self, rpc: str) -> None:
        """Count an RPC that runs."""
        self._counts.running[rpc] += 1

    def ended(self, rpc: str, code: int) -> None:
        """Count it as ended."""
        self._counts.running[rpc] -= 1
        self._counts.ended[rpc, code] += 1


class _Monitored(AbstractContextManager[None]):
    """Around one RPC."""

    __slots__ = ("_by", "_context", "_record", "_rpc", "_whole")

    def __init__(self, by: MonitoringInterceptor, rpc: str, context: Any, *, whole: bool) -> None:
        self._by = by
        self._rpc = rpc
        self._context = context
        self._whole = whole
        self._record: RpcRecord | None = None

    def __enter__(self) -> None:
        self._by.started(self._rpc)
        if self._whole:
            self._record = self._by.begin(self._rpc, self._context)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        code = _code(error, self._context)
        self._by.ended(self._rpc, code)
        if self._record is not None:
            self._by.end(self._record, code)


def _code(error: BaseException | None, context: Any) -> int:
    """The status code with which an RPC has ended."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return _CANCELLED
    code = context.code()
    number: int = code.value[0] if isinstance(code, grpc.StatusCode) else code or _OK
    return number if error is None or number != _OK else _UNKNOWN
