"""What watches a server, put together from its settings: nothing where nothing is asked for.

prometheus-client and OpenTelemetry are imported here, and only if they are needed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bertd_server.config.reloading import Reloading
from bertd_server.config.settings import AUTO, OFF, ON, Settings
from bertd_server.errors import MisusedError
from bertd_server.models.model import Model
from bertd_server.observability.access import AccessLog
from bertd_server.observability.families import ModelSnapshot
from bertd_server.rpc.interceptors.monitoring import MonitoringInterceptor
from bertd_server.rpc.load_reports import Load
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.system.call_metrics import RpcCounts
from bertd_server.system.logs import get_logger

if TYPE_CHECKING:
    from bertd_server.observability.endpoint import Endpoint
    from bertd_server.observability.tracing import Tracing
    from bertd_server.rpc.health import HealthService

log = get_logger("bertd")

_LAST_SPANS_SECONDS = 2.0  # for a collector to take what is left
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Observability:
    """Metrics, access log and traces of one server.

    Attributes:
        interceptors: to go before all others; none if no RPC needs to be monitored.
        counts: of RPCs, if they are monitored.
        http_address: where HTTP is served, with the port that was taken; empty if it is not.
    """

    def __init__(
        self,
        settings: Settings,
        health: HealthService,
        models: Callable[[], Iterable[Model]],
        methods: frozenset[str],
        memory: MemoryBudget,
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            settings: of the server.
            health: says whether it is ready.
            models: gives all that are served.
            methods: paths of all that its services have.
            memory: of requests in flight.

        Raises:
            MisusedError: traces or channelz are asked for, and their packages are not there.
        """
        self._settings = settings
        self._health = health
        self._models = models
        self._memory = memory
        self._endpoint: Endpoint | None = None
        self._tracing = _tracing(settings.tracing_endpoint)
        self.counts = RpcCounts()
        self.http_address = ""
        logs = None
        if settings.access_log == ON:
            logs = AccessLog(settings.access_log_sample, texts=settings.log_texts == ON)
        self.interceptors: list[MonitoringInterceptor] = []
        if settings.http_address != OFF or logs is not None or self._tracing is not None:
            if settings.channelz == ON:
                methods |= {f"/{_channelz().full_name}/{one.name}" for one in _channelz().methods}
            self.interceptors.append(
                MonitoringInterceptor(self.counts, methods, logs, self._tracing)
            )

    def listen(self) -> None:
        """Serve HTTP, if it is asked for; call this on the event loop of the server.

        Raises:
            OSError: the address is taken, or not one of this machine.
        """
        if self._settings.http_address == OFF:
            return
        from bertd_server.observability import metrics  # noqa: PLC0415 - only where HTTP is on
        from bertd_server.observability.endpoint import Endpoint  # noqa: PLC0415
        from bertd_server.observability.pages import Pages  # noqa: PLC0415

        pages = Pages(
            lambda: metrics.look(
                lambda: map(_snapshot, self._models()),
                self.counts,
                ready=self._health.serving,
                draining=self._health.draining,
                requests=metrics.RequestMemory(
                    self._memory.held, self._memory.limit, self._memory.waiting
                ),
            ),
            self._settings.memory_limit,
        )
        host, _, port = self._settings.http_address.rpartition(":")
        self._endpoint = Endpoint(pages.pages())
        taken = self._endpoint.start(host.strip("[]"), int(port))
        self.http_address = f"{host}:{taken}"

    async def stop(self) -> None:
        """End HTTP, and send the spans that are left."""
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.stop)
        if self._tracing is not None:
            # A thread that may be left behind: its collector may be gone.
            last = threading.Thread(target=self._tracing.close, name="bertd-spans", daemon=True)
            last.start()
            await asyncio.to_thread(last.join, _LAST_SPANS_SECONDS)


def _snapshot(model: Model) -> ModelSnapshot:
    """A model as a scrape sees it."""
    return ModelSnapshot(
        model.name,
        model.version,
        model.manifest.task,
        model.manifest.precision,
        model.limits.lanes,
        model.statistics.copy(),
        model.gauges(),
    )


def _tracing(endpoint: str) -> Tracing | None:
    """Where spans go; None for nowhere."""
    if endpoint == OFF or (endpoint == AUTO and not _configured()):
        return None
    try:
        from bertd_server.observability.tracing import Tracing  # noqa: PLC0415 - only where it is on
    except ImportError as error:
        remedy = "pip install 'bertd[tracing]'"
        if endpoint == AUTO:  # the variables may be meant for others in this environment
            log.warning("no traces", reason=str(error), remedy=remedy)
            return None
        raise MisusedError(f"--tracing-endpoint needs OpenTelemetry: {remedy}") from error
    return Tracing.to("" if endpoint == AUTO else endpoint)


def _configured() -> bool:
    """Whether OpenTelemetry's own variables ask for traces."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    elsewhere = os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not disabled and not elsewhere and any(map(os.environ.get, _ENDPOINTS))


def reported_load(reloading: Reloading, models: Callable[[], list[Model]]) -> Load | None:
    """What balancers are told, if the settings say so."""
    if reloading.settings.load_reports == OFF:
        return None
    return Load(models, lambda: reloading.settings.max_queue_seconds)


def add_channelz(server: Any) -> str:
    """Add gRPC's own introspection to a server; returns the service's name.

    Raises:
        MisusedError: its package is not there.
    """
    name: str = _channelz().full_name
    from grpc_channelz.v1 import channelz  # noqa: PLC0415 - optional

    channelz.add_channelz_servicer(server)
    return name


def _channelz() -> Any:
    """The descriptor of gRPC's own introspection.

    Raises:
        MisusedError: its package is not there.
    """
    try:
        from grpc_channelz.v1 import channelz_pb2  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MisusedError("--channelz needs pip install 'bertd[channelz]'") from error
    return channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
