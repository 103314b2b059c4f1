"""Limits of connections and streams: gRPC's channel arguments, and the system's."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from bertd_server.config.settings import Settings

ChannelArguments = list[tuple[str, int]]
_NONE = 2**31 - 1


def options(settings: Settings) -> ChannelArguments:
    """What gRPC enforces before a call is ours.

    https://grpc.github.io/grpc/core/group__grpc__arg__keys.html says what each means; a value of 0
    in our settings is "no limit", which gRPC spells as the largest number.
    """
    limits = [
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_idle_ms", _ms(settings.max_connection_idle_seconds)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_connection_grace_seconds)),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)),
    ]
    return [
        *((name, min(value, _NONE) or _NONE) for name, value in limits),
        ("grpc.server_handshake_timeout_ms", max(1, _ms(settings.handshake_seconds))),
        ("grpc.keepalive_timeout_ms", max(1, _ms(settings.keepalive_timeout_seconds))),
        # Pings go to connections without calls too, and clients may send theirs then.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_client_ping_seconds)),
        # So many pings too early are borne; the next one ends the connection (too_many_pings).
        ("grpc.http2.max_ping_strikes", 2),
    ]


def defer_accept(port: int, seconds: float) -> int:
    """Have the system keep connections to a port to itself until their clients have said something.

    A client of HTTP/2 or TLS speaks first. One that does not never counts among `max_connections`.
    gRPC gives no way to its sockets, so that they are found among the files of this process. Only
    Linux can.

    Args:
        port: that gRPC listens on.
        seconds: after which the system forgets such a connection, roughly.

    Returns:
        how many sockets listen there.
    """
    if sys.platform != "linux":
        return 0
    found = 0
    for one in _sockets():
        with one, contextlib.suppress(OSError):
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and one.getsockname()[1] == port:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, max(1, round(seconds)))
                found += 1
    return found


def _sockets() -> Iterator[socket.socket]:
    """Those of IP that this process has open, each as a duplicate to be closed."""
    for path in Path("/proc/self/fd").iterdir():
        try:
            if not str(path.readlink()).startswith("socket:"):
                continue
            one = socket.socket(fileno=os.dup(int(path.name)))
        except OSError:  # closed by now
            continue
        if one.family in {socket.AF_INET, socket.AF_INET6}:
            yield one
        else:
            one.close()


def _ms(seconds: float) -> int:
    return round(min(_NONE, 1000 * seconds))
