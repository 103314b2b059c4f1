"""Our services on somebody else's `grpc.aio` server.

::

    models ──> HostedServices ──add_to──> their server, beside their own services
                  │ leave(): NOT_SERVING, answers go on
                  └ drain(): streams and watchers end; their server.stop() waits for the rest

The server stays theirs: its address, credentials, limits and interceptors, its start and its stop.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from bertd_server.inside.models import OpenModels
from bertd_server.rpc.health import HealthService
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.services import SERVICE_NAMES, Services
from bertd_server.security.management import Management

# gRPC's own limit of a message that comes in, unless the server was made with another.
_MESSAGE_BYTES = 4 * 1024 * 1024

_FIXED = Management(
    "changes what is served, which the program does that runs this server: ask whoever runs it"
)


def interceptor() -> grpc.aio.ServerInterceptor:
    """Answers what is no valid message with INVALID_ARGUMENT and the field, for our services.

    Give it to `grpc.aio.server(interceptors=[…])`, last. It leaves other services alone.
    """
    return Services.interceptor()


class HostedServices:
    """bertd.v1, tei.v1 and the Open Inference Protocol. Use them on the loop of the models."""

    def __init__(
        self,
        models: OpenModels,
        *,
        others: Iterable[str] = (),
        max_texts_per_call: int = 256,
        max_message_bytes: int = _MESSAGE_BYTES,
    ) -> None:
        """Serve models, those too that are loaded later. One set of services for a set of models.

        Args:
            models: that answer.
            others: full names of the host's services, for health and reflection.
            max_texts_per_call: in one call.
            max_message_bytes: that the server takes, as it was made.
        """
        self._others = tuple(others)
        self._health = HealthService([*SERVICE_NAMES, *self._others])
        self._services = Services(
            models.catalogue,
            CallLimits(
                max_texts_per_call, max_message_bytes, caches=models.settings.cache_bytes > 0
            ),
            self._health,
        )
        models.when_lanes(lambda alive: self._health.report(serving=alive > 0))

    def add_to(
        self, server: grpc.aio.Server, *, health: bool = True, reflection: bool = True
    ) -> None:
        """Add the services to a server that is not started yet.

        Args:
            server: the host's.
            health: grpc.health.v1 too, unless the host has its own; see :attr:`serving`.
            reflection: of all services too, unless the host has its own.
        """
        self._services.add_to(server, _FIXED)
        if health:
            self._services.add_health_to(server)
        if reflection:
            self._services.add_reflection_to(server, *self._others)

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the services, for a health service of the host's own."""
        return SERVICE_NAMES

    @property
    def serving(self) -> bool:
        """Whether calls can be answered now: a lane is alive, and nobody has said to leave."""
        return self._health.serving

    def leave(self) -> None:
        """Report NOT_SERVING from now on, so that balancers look away; calls are answered."""
        self._health.leave()

    def drain(self) -> None:
        """Report NOT_SERVING, end streams with what they have sent, and let watchers go.

        Call it before `server.stop(grace)`: a stream that stays would use up the grace.
        """
        self._health.drain()
        self._services.closing.set()
