"""Metrics for Prometheus, from what the server counts anyway. Imported only where HTTP is on.

::

    event loop: look() ──> ServerSnapshot, in some tens of µs ──> HTTP thread: collector ──> text

Nothing is counted twice: a scrape reads. The registry is the server's own, so that two servers of
a process do not meet.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

import bertd
import grpc
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from bertd_server.observability.families import (
    FAMILIES,
    OF_MODEL,
    OF_SERVER,
    Buckets,
    MetricKind,
    MetricSample,
    ModelSnapshot,
)
from bertd_server.observability.resident import resident
from bertd_server.system.call_metrics import RpcCounts, protocol_of

Models = Callable[[], Iterable[ModelSnapshot]]
"""Gives each model that is served, as it is now."""

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class RequestMemory:
    """Of requests in flight: bytes that they have, that they may have, and calls that wait."""

    held: int = 0
    limit: int = 0
    waiting: int = 0


_NO_REQUESTS = RequestMemory()


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """A server as it was at one moment of its event loop.

    Attributes:
        ready: whether calls are taken.
        draining: whether they never will be again.
        models: that are served.
        ended: RPCs by method and code.
        running: RPCs by method.
        requests: memory of those in flight.
        lag: seconds that the event loop took to look.
    """

    ready: bool
    draining: bool
    models: tuple[ModelSnapshot, ...]
    ended: dict[tuple[str, int], int]
    running: dict[str, int]
    requests: RequestMemory = _NO_REQUESTS
    lag: float = 0.0


def look(
    models: Models,
    counts: RpcCounts,
    *,
    ready: bool,
    draining: bool,
    requests: RequestMemory = _NO_REQUESTS,
) -> ServerSnapshot:
    """Copy what there is to see; call this on the event loop.

    Of two models with one name and version, the later is seen: one of them is going away.
    """
    found = {(view.name, view.version): view for view in models()}
    return ServerSnapshot(
        ready, draining, tuple(found.values()), dict(counts.ended), dict(counts.running), requests
    )


class SnapshotCollector(Collector):
    """Turns the newest state into samples; in one thread.

    Attributes:
        state: what is told next.
    """

    def __init__(self, memory_limit: int) -> None:
        """Take what --memory-limit allows, in bytes."""
        self.state = ServerSnapshot(False, False, (), {}, {})  # nothing yet
        self._memory_limit = memory_limit

    def describe(self) -> list[Metric]:
        """All metrics without samples: a scraper may ask for some by name."""
        of_server = [
            _metric(name, kind, help_, labels, ())
            for name, (kind, help_, labels) in OF_SERVER.items()
        ]
        return [
            *of_server,
            *(_metric(each.name, each.kind, each.help, (), ()) for each in FAMILIES),
        ]

    def collect(self) -> Iterator[Metric]:
        """All metrics of the server."""
        for name, (kind, help_, labels) in OF_SERVER.items():
            yield _metric(name, kind, help_, labels, self._of_server(name))
            time.sleep(0)  # let the event loop have the interpreter
        for family in FAMILIES:
            samples = (
                ((view.name, view.version, *labels), value)
                for view in self.state.models
                for labels, value in family.read(view)
            )
            yield _metric(
                family.name, family.kind, family.help, (*OF_MODEL, *family.labels), samples
            )
            time.sleep(0)

    def _of_server(self, name: str) -> list[MetricSample]:
        state = self.state
        if name == "bertd_build_info":
            built = bertd.__version__, version("onnxruntime"), platform.python_version()
            return [(built, 1)]
        if name == "bertd_rpcs_total":
            return [
                ((rpc, protocol_of(rpc), _CODES[code]), count)
                for (rpc, code), count in state.ended.items()
            ]
        if name == "bertd_rpcs_in_flight":
            return [((rpc, protocol_of(rpc)), count) for rpc, count in state.running.items()]
        if name == "bertd_memory_bytes":
            return [((kind,), size) for kind, size in resident().items()]
        if name == "bertd_request_memory_bytes":
            return [(("held",), state.requests.held), (("limit",), state.requests.limit)]
        single = {
            "bertd_ready": state.ready,
            "bertd_event_loop_lag_seconds": state.lag,
            "bertd_memory_limit_bytes": self._memory_limit,
            "bertd_calls_waiting_for_memory": state.requests.waiting,
        }
        return [((), float(single[name]))]


def registry(collector: SnapshotCollector) -> CollectorRegistry:
    """A registry of one server: its state, and what the system says of the process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(collector)
    ProcessCollector(registry=made)
    return made


def _metric(
    name: str,
    kind: MetricKind,
    help_: str,
    labels: tuple[str, ...],
    samples: Iterable[MetricSample],
) -> Metric:
    if kind == "histogram":
        histogram = HistogramMetricFamily(name, help_, labels=labels)
        for values, buckets in samples:
            assert isinstance(buckets, Buckets)  # noqa: S101 - the table says so
            bounds = [(_bound(bound), below) for bound, below in buckets.counts]
            histogram.add_metric(values, bounds, buckets.total)
        return histogram
    made = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}[kind]
    plain: CounterMetricFamily | GaugeMetricFamily = made(name, help_, labels=labels)
    for values, value in samples:
        assert not isinstance(value, Buckets)  # noqa: S101 - likewise
        plain.add_metric(values, value)
    return plain


def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else repr(bound)
