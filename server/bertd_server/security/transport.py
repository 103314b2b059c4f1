"""Limits of connections and streams, as gRPC's channel arguments."""

from __future__ import annotations

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
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_connection_grace_seconds)),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)),
    ]
    return [
        *((name, min(value, _NONE) or _NONE) for name, value in limits),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout_seconds)),
        # Pings go to connections without calls too, and clients may send theirs then.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_client_ping_seconds)),
        # So many pings too early are borne; the next one ends the connection (too_many_pings).
        ("grpc.http2.max_ping_strikes", 2),
    ]


def _ms(seconds: float) -> int:
    return round(min(_NONE, 1000 * seconds))
