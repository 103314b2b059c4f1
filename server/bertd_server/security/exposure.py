"""Where the server may listen without TLS: where nobody else's machine can reach it."""

from __future__ import annotations

import ipaddress
import socket

from bertd_server.config.settings import OFF, UNIX, Settings
from bertd_server.errors import MisusedError
from bertd_server.system.logs import get_logger

log = get_logger("bertd")


def check(settings: Settings) -> None:
    """Refuse settings that would serve strangers, or that contradict each other.

    HTTP has no TLS: it shows names and numbers of models, and probes need it. Beyond loopback it is
    served with a warning.

    Raises:
        MisusedError: it names the setting and the remedies.
    """
    if settings.http_address != OFF and not is_local(settings.http_address):
        log.warning(
            "HTTP beyond loopback",
            http_address=settings.http_address,
            shows="metrics and names of models, to whoever reaches it",
            remedy="a network policy, or a loopback address",
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        given, lacking = "--tls-certificate", "--tls-key"
        if settings.tls_certificate is None:
            given, lacking = lacking, given
        raise MisusedError(f"{given} without {lacking}: give both, or neither")
    if settings.tls_certificate is None and settings.tls_client_ca is not None:
        raise MisusedError(
            "--tls-client-ca without --tls-certificate and --tls-key: certificates of clients are "
            "asked for within TLS; give all three"
        )
    if settings.tls_certificate is not None or settings.insecure:
        return
    for flag, address in (
        ("--address", settings.address),
        ("--management-address", settings.management_address),
        ("--http-api", "" if settings.http_api == OFF else settings.http_api),
    ):
        if address and not is_local(address):
            raise MisusedError(
                f"{flag} {address} can be reached from other machines, and anybody on the way can "
                "read and change what is sent: give --tls-certificate and --tls-key, or --insecure "
                "if something in front does TLS or the network is trusted; 127.0.0.1 needs neither"
            )


def is_local(address: str) -> bool:
    """Whether only processes of this machine reach an address: a Unix socket, or loopback."""
    if address.startswith(UNIX):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:  # a name
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(
        ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback for *_, place in found
    )
