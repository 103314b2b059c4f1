"""How a client is sure of its server, and the server of it: TLS, a certificate, an API key.

::

    Security ──> channel     ssl, where TLS is asked for
            └──> metadata    authorization: Bearer …, of each call
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

Metadata = tuple[tuple[str, str], ...]
File = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Security:
    """What a connection is made with; by default it is open, as fits a server on this machine.

    ::

        Client("bertd.example:8001", security=Security(ca="ca.pem", api_key=KEY))

    Attributes:
        tls: Whether to use TLS; so does each of the next three.
        ca: PEM file of the CAs that the server's certificate may be of; by default gRPC's own list
            of public ones.
        certificate: PEM file of the client's certificate, for servers that ask for one.
        key: PEM file of its private key.
        api_key: Key that the server's operator gave; without TLS whoever is on the way can read it.
    """

    tls: bool = False
    ca: File | None = None
    certificate: File | None = None
    key: File | None = None
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be sent.

        Raises:
            ValueError: A certificate without its key or the other way round, or an API key with
                characters that a header cannot have.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate and its key go together: give both")
        if self.api_key is not None and not (
            self.api_key.isascii() and self.api_key.isprintable() and self.api_key.strip()
        ):
            raise ValueError("the API key has characters that no key has: copy it again")

    @property
    def metadata(self) -> Metadata | None:
        """Of each call."""
        return (
            None if self.api_key is None else (("authorization", f"Bearer {self.api_key.strip()}"),)
        )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Of a channel; None for one without TLS.

        Raises:
            ValueError: A file cannot be read, or holds something else.
        """
        if not (self.tls or self.ca or self.certificate):
            return None
        return grpc.ssl_channel_credentials(
            _read(self.ca, "CA", _CERTIFICATE),
            _read(self.key, "key", _KEY),
            _read(self.certificate, "certificate", _CERTIFICATE),
        )


OPEN = Security()
_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"  # as PEM calls them


def open_channel(
    where: str, options: Sequence[tuple[str, str | int]], security: Security
) -> grpc.Channel:
    """A channel to a target, with TLS where it is asked for."""
    credentials = security.credentials()
    if credentials is None:
        return grpc.insecure_channel(where, options=options)
    return grpc.secure_channel(where, credentials, options=options)


def open_async_channel(
    where: str, options: Sequence[tuple[str, str | int]], security: Security
) -> grpc.aio.Channel:
    """The same for asyncio."""
    credentials = security.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(where, options=options)
    return grpc.aio.secure_channel(where, credentials, options=options)


def _read(path: File | None, what: str, holds: str) -> bytes | None:
    """The content of a PEM file, in which gRPC looks for nothing until a connection fails."""
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"the {what} cannot be read: {error}") from error
    if f"{holds}-----".encode() not in content:
        raise ValueError(f"the {what}, {path}, holds no {holds} in PEM: give another file")
    return content
