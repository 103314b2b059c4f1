"""How the client's channels behave: where they lead, balancing, retries and message sizes.

::

    one IP or socket          the address itself: one connection
    one name                  dns: every address of the name, in turn; gRPC looks it up again
    several, comma-separated  ipv4: or ipv6: every address, in turn; names are looked up once, here

"In turn" is gRPC's round_robin with its health check: a server that drains, or that no longer
answers, gets no more calls until it is well again. With `weighted` it is weighted_round_robin, by
the load that each server reports with its answers; round_robin until they do.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from bertd.v1.inference_pb2_grpc import InferenceServiceStub
from bertd.v1.models_pb2_grpc import ModelServiceStub

INFERENCE = "bertd.v1.InferenceService"
MODELS = "bertd.v1.ModelService"
DEFAULT_ADDRESS = "127.0.0.1:8001"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_PORT = 65_535

# gRPC's own two minutes would leave a server that was down for half a minute without calls for as
# long again, while the next one is restarted and nobody is left.
MAX_RECONNECT_MS = 2_000

ChannelOptions = tuple[tuple[str, str | int], ...]

# Every call only reads, so that repeating one is safe. gRPC adds jitter to the backoff. Where the
# server says how long to wait (grpc-retry-pushback-ms), that counts; a negative number ends the
# attempts.
_RETRIES: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{"service": INFERENCE}, {"service": MODELS}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # A server that stops cancels what has reached it and was not begun.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
            },
        }
    ]
}
# https://github.com/grpc/grpc/blob/master/doc/service_config.md, and health-checking.md there.
_BALANCING: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": INFERENCE},
}
# gRPC would trust no weight of a connection's first ten seconds. A client whose gRPC does not know
# the policy takes the next one.
_WEIGHTED: dict[str, Any] = {
    "weighted_round_robin": {"blackoutPeriod": "1s", "weightExpirationPeriod": "10s"}
}


def target(address: str | Sequence[str], *, weighted: bool = False) -> tuple[str, ChannelOptions]:
    """What to open a channel to, and with which options.

    Args:
        address: Host and port, or any other gRPC target (``unix:/run/bertd.sock``); several, in a
            sequence or separated by commas, must be hosts with ports.
        weighted: Whether servers that report less load get more calls.

    Raises:
        ValueError: An address is none, a name is not known, or IPv4 and IPv6 are mixed.
    """
    given = address.split(",") if isinstance(address, str) else list(address)
    addresses = [one.strip() for one in given]
    if len(addresses) == 1 or addresses[0].startswith(("ipv4:", "ipv6:")):
        (one,) = addresses if len(addresses) == 1 else [",".join(addresses)]
        if not one or one.startswith(("http://", "https://")):
            raise ValueError(f"{one!r} is no address: give host:port, without http://")
        port = one.rpartition(":")[2]
        if port.isdecimal() and int(port) > MAX_PORT:
            raise ValueError(f"port {port} is above {MAX_PORT}")
        return one, _options(balanced=not _is_single(one), weighted=weighted)
    hosts = [_host_and_port(one) for one in addresses]
    places = [_resolve(host, port) for host, port in hosts]
    families = {family for family, _ in places}
    if len(families) > 1:
        raise ValueError(
            f"{', '.join(addresses)} are IPv4 and IPv6 addresses, which one channel cannot mix: "
            "give all as IPv4 or all as IPv6"
        )
    return f"{families.pop()}:{','.join(place for _, place in places)}", _options(
        balanced=True, weighted=weighted
    )


def stubs(channel: grpc.Channel | grpc.aio.Channel) -> Mapping[str, Any]:
    """What makes a call of each RPC, by the RPC's name."""
    return {**vars(InferenceServiceStub(channel)), **vars(ModelServiceStub(channel))}


def _options(*, balanced: bool, weighted: bool) -> ChannelOptions:
    config = {**_RETRIES, **(_BALANCING if balanced else {})}
    if balanced and weighted:
        config["loadBalancingConfig"] = [_WEIGHTED, *_BALANCING["loadBalancingConfig"]]
    return (
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", 1),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    )


def _is_single(one: str) -> bool:
    """Whether a target is one server for sure."""
    if one.startswith(("unix:", "unix-abstract:")):
        return True
    return "," not in one and _ip(_split(one)[0]) is not None


def _host_and_port(one: str) -> tuple[str, int]:
    host, port = _split(one)
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError(
            f"{one!r} is no address: of several, each must be host:port, with a port of at most "
            f"{MAX_PORT}"
        )
    return host, int(port)


def _resolve(host: str, port: int) -> tuple[str, str]:
    """The scheme of a host's address, and the address with its port."""
    ip = _ip(host)
    if ip is None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"no address is known for {host!r} ({error}): check it") from error
        # Where a name has both, IPv4: so all names agree as often as they can.
        *_, place = min(found, key=lambda info: info[0] != socket.AF_INET)
        ip = _ip(str(place[0]).partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return "ipv6", f"[{ip}]:{port}"
    return "ipv4", f"{ip}:{port}"


def _split(one: str) -> tuple[str, str]:
    host, _, port = one.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
