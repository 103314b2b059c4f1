"""grpc.health.v1: every service SERVING while a lane lives, from the start until the server drains.

Each model has a name too, `models/NAME`. A service that no model answers is NOT_SERVING
throughout, as clients of some protocols expect.

A watcher is told of every change. Once the server drains it is let go: one that stayed would hold
the server for as long as in-flight calls may take. Watches need no key and end when their clients
want, so that there are only so many of them at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

import grpc
from grpc.aio import ServicerContext as Context
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from bertd_server.errors import Overloaded
from bertd_server.rpc import status as statuses

# What health calls a model; no service has a slash in its name.
MODEL = "models/{}"

# Characters of a name that an error quotes: gRPC sends no details of any size.
_QUOTED = 100

MOST_WATCHES = 4_096
_SOON = 1.0  # seconds after which one of the watches may have ended


class HealthService(health_pb2_grpc.HealthServicer):
    """Says whether the server takes calls; use it on one event loop."""

    def __init__(self, services: Iterable[str], most_watches: int = MOST_WATCHES) -> None:
        """Watch over services.

        Args:
            services: their names; the empty one, the whole server, is always known.
            most_watches: at once; 0 for no limit.
        """
        self._most_watches = most_watches or math.inf
        self._watches = 0
        self._services = frozenset(["", *services])
        self._unanswered: frozenset[str] = frozenset()
        self._models: frozenset[str] = frozenset()
        self._serving = True
        self._starting = False
        self._leaving = False
        self._draining = False
        self._changed = asyncio.Event()

    def starts(self, *, starting: bool = True) -> None:
        """Report NOT_SERVING until the server has what it will answer with."""
        self._starting = starting
        self._tell()

    def report(self, *, serving: bool) -> None:
        """Say whether calls can be answered now."""
        self._serving = serving
        self._tell()

    def leave_out(self, services: Iterable[str]) -> None:
        """Say which services no model answers."""
        self._unanswered = frozenset(services)
        self._tell()

    def leave(self) -> None:
        """Report NOT_SERVING from now on; watchers stay."""
        self._leaving = True
        self._tell()

    def report_models(self, names: Iterable[str]) -> None:
        """Say which models answer; others are unknown."""
        self._models = frozenset(map(MODEL.format, names))
        self._tell()

    def drain(self) -> None:
        """Report NOT_SERVING from now on, and let watchers go."""
        self._leaving = True
        self._draining = True
        self._tell()

    @property
    def draining(self) -> bool:
        """Whether no calls will be taken any more."""
        return self._draining

    @property
    def serving(self) -> bool:
        """Whether calls can be answered now."""
        return self._serving and not self._leaving and not self._starting

    def _tell(self) -> None:
        """Wake the watchers; each then waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 - the RPC's name
        self, request: HealthCheckRequest, context: Context[HealthCheckRequest, HealthCheckResponse]
    ) -> HealthCheckResponse:
        """Answer with the status of a service."""
        if not self._is_known(request.service):
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service {request.service[:_QUOTED]!r} is not served; served: "
                f"{', '.join(sorted(filter(None, [*self._services, *self._models])))}",
            )
        return self._status(request.service)

    async def Watch(  # noqa: N802 - the RPC's name
        self, request: HealthCheckRequest, context: Context[HealthCheckRequest, HealthCheckResponse]
    ) -> None:
        """Send the status of a service now, and whenever it changes, until the server drains."""
        if self._watches >= self._most_watches:
            await statuses.abort(context, self._too_many())
        self._watches += 1
        try:
            await self._watch(request, context)
        finally:
            self._watches -= 1

    def _too_many(self) -> Overloaded:
        return Overloaded(
            f"{self._watches} calls of Health.Watch are open, as many as may be: close some, ask "
            "with Health.Check, or start the server with a larger --max-health-watches",
            reason="health_watches",
            retry_after_seconds=_SOON,
        )

    async def _watch(
        self, request: HealthCheckRequest, context: Context[HealthCheckRequest, HealthCheckResponse]
    ) -> None:
        sent = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != sent:
                await context.write(status)
                sent = status
            if self._draining:
                return
            await changed.wait()

    def _status(self, service: str) -> HealthCheckResponse:
        if not self._is_known(service):
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        answered = service not in self._unanswered
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING
            if answered and self.serving
            else HealthCheckResponse.NOT_SERVING
        )

    def _is_known(self, service: str) -> bool:
        return service in self._services or service in self._models
