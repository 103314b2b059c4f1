"""grpc.health.v1: every service SERVING until the server drains, then NOT_SERVING.

A watcher is told so and let go: one that stayed would hold the draining server for as long as
in-flight calls may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
from grpc.aio import ServicerContext as Context
from grpc_health.v1 import health_pb2, health_pb2_grpc

Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):
    """Says whether the server takes calls; use it on one event loop."""

    def __init__(self, services: Iterable[str]) -> None:
        """Take the names of the services; the empty name, the whole server, is always known."""
        self._services = frozenset(["", *services])
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Report NOT_SERVING from now on."""
        self._draining.set()

    async def Check(  # noqa: N802 - the RPC's name
        self, request: Request, context: Context[Request, Response]
    ) -> Response:
        """Answer with the status of a service."""
        if request.service not in self._services:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service {request.service!r} is not served; served: "
                f"{', '.join(sorted(filter(None, self._services)))}",
            )
        return self._status(request.service)

    async def Watch(  # noqa: N802 - the RPC's name
        self, request: Request, context: Context[Request, Response]
    ) -> None:
        """Send the status of a service now, and once more when the server drains."""
        await context.write(self._status(request.service))
        await self._draining.wait()
        await context.write(self._status(request.service))

    def _status(self, service: str) -> Response:
        if service not in self._services:
            return Response(status=Response.SERVICE_UNKNOWN)
        draining = self._draining.is_set()
        return Response(status=Response.NOT_SERVING if draining else Response.SERVING)
