"""HTTP beside gRPC: the protocols that most tools speak, over the same tasks, keys and limits.

::

    server       addresses, TLS, connections, the drain
    front        a call's way: its id, its key, its deadline, its metrics, its error
    openai, rerank, tei, huggingface, tensors, methods
                 the protocols: JSON to what `tasks` take, replies to JSON
    console      a page for people, and what it asks
    openapi      what there is, from the same tables that answer
    fields       what requests of every protocol share
    call, bodies, replies, failures, connections
                 a call, its bytes in and out, errors in each protocol's form

It is imported with `--http-api` alone, and needs the extra `[http]`.
"""

from __future__ import annotations

from collections.abc import Callable
from ssl import SSLContext

from bertd_server.config.settings import OFF, Settings
from bertd_server.errors import MisusedError
from bertd_server.rpc.services import Services
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.security.keys import KeyRing
from bertd_server.security.management import Management

try:
    from bertd_server.http.connections import ConnectionLimits
    from bertd_server.http.console import ConsoleCalls
    from bertd_server.http.front import Front, Monitor
    from bertd_server.http.routes import routes_of
    from bertd_server.http.server import HttpServer
except ModuleNotFoundError as missing:
    raise MisusedError(f"--http-api needs pip install 'bertd[http]' ({missing})") from missing


def http_server(  # noqa: PLR0913 - by keyword
    settings: Settings,
    services: Services,
    management: Management,
    *,
    keys: KeyRing | None,
    tls: SSLContext | None,
    monitor: Monitor | None,
    grpc_address: Callable[[], str],
    memory: MemoryBudget,
) -> HttpServer:
    """HTTP over services, with the limits of the settings; nothing listens yet.

    Args:
        settings: of the server.
        services: over its models.
        management: whether calls may change what is served.
        keys: that calls need, if they do.
        tls: of the address; None for none.
        monitor: what goes around each call, if somebody counts them.
        grpc_address: where the same is answered over gRPC, once that is known.
        memory: of requests in flight.
    """
    routes = routes_of(services, management)
    if settings.console != OFF:
        console = ConsoleCalls(services.models, grpc_address, tls=tls is not None)
        routes += console.routes()
    front = Front(
        routes,
        services.limits,
        keys=keys,
        monitor=monitor,
        memory=memory,
        body_seconds=settings.handshake_seconds,
    )
    limits = ConnectionLimits(
        settings.max_connections, settings.handshake_seconds, settings.keepalive_timeout_seconds
    )
    return HttpServer(front, limits, tls=tls, idle_seconds=settings.max_connection_idle_seconds)
