"""The server's certificate and the CAs of its clients, read again when their files change.

::

    handshake ──> files as before?  yes: what gRPC has
                         │ no
                         └──> read, try ──good──> this and later handshakes have the new pair
                                         bad ──> they keep the old one; the log says why

Each handshake looks at the files (three calls of stat, some microseconds), so that no timer is
needed and a new pair counts at once. A link is followed anew each time: the swap of a folder's
link, as Kubernetes does it, is a change like any other. Connections that are open stay.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from bertd_server.errors import MisusedError
from bertd_server.security.files import Stamp, stamp
from bertd_server.system.logs import get_logger

log = get_logger("bertd")


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM of a private key, of its certificate with intermediates, and of the clients' CAs."""

    key: bytes
    chain: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC takes it, once."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.client_ca)


class Certificates:
    """What handshakes use; threads of gRPC ask for it."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Read the files.

        Args:
            certificate: PEM, the server's own first, then intermediates.
            key: PEM, not encrypted.
            client_ca: PEM of the CAs whose clients may connect; None lets any connect.

        Raises:
            MisusedError: they are no pair.
        """
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()
        self._stamp = self._look()
        try:
            self._pair = self._read()
        except (OSError, ValueError) as error:
            raise MisusedError(
                f"TLS cannot be offered: {error}; --tls-certificate, --tls-key and "
                "--tls-client-ca name files in PEM that the server may read"
            ) from error
        if key.stat().st_mode & 0o004:
            log.warning(
                "private key readable by all",
                file=str(key),
                remedy="chmod 600, or defaultMode: 0400 of the volume",
            )

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; each handshake on it asks for what is current."""
        given = self._pair

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            current = self._current()
            if current is given:
                return None  # as before
            given = current
            return current.configuration()

        return grpc.dynamic_ssl_server_credentials(
            given.configuration(),
            fetch,  # type: ignore[arg-type] # the stubs miss that None means "as before"
            require_client_authentication=self._client_ca is not None,
        )

    def context(self) -> ssl.SSLContext:
        """For connections that are not gRPC's; each handshake asks for what is current."""
        given, made = self._pair, self._context()
        current = made

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            nonlocal given, current
            pair = self._current()
            if pair is not given:
                given, current = pair, self._context()
            connection.context = current

        made.sni_callback = renew
        return made

    def _context(self) -> ssl.SSLContext:
        """Of the files as they are now, which have been tried."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(self._certificate, self._key, password=lambda: "")
        if self._client_ca is not None:
            made.load_verify_locations(self._client_ca)
            made.verify_mode = ssl.CERT_REQUIRED
        return made

    def reload(self) -> bool:
        """Read the files now, changed or not; returns whether they are a pair."""
        with self._lock:
            self._stamp = self._look()
            return self._replace()

    def _current(self) -> Pair:
        with self._lock:
            seen = self._look()
            if seen != self._stamp:
                self._stamp = seen
                self._replace()
            return self._pair

    def _look(self) -> tuple[Stamp | None, ...]:
        return tuple(
            stamp(path) if path else None
            for path in (self._certificate, self._key, self._client_ca)
        )

    def _replace(self) -> bool:
        try:
            read = self._read()
        except (OSError, ValueError) as error:
            log.error(  # noqa: TRY400 - the message says it all
                "certificate not reloaded",
                error=str(error),
                remedy="put a certificate and its key into place; until then the old ones serve",
            )
            return False
        if read != self._pair:
            self._pair = read
            log.info("certificate reloaded", file=str(self._certificate))
        return True

    def _read(self) -> Pair:
        """Read the files, and try them.

        Raises:
            OSError: one cannot be read.
            ValueError: they do not belong together, or are no PEM.
        """
        pair = self._contents()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A callback, as OpenSSL would ask on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except ssl.SSLError as error:
            raise ValueError(
                f"{self._certificate} and {self._key} are not a certificate and its unencrypted "
                f"key in PEM ({error.reason or error})"
            ) from error
        if pair.client_ca is not None:
            _check_ca(pair.client_ca, self._client_ca)
        if self._contents() != pair:  # what was tried may not be what was read
            raise ValueError("the files changed while they were read; the next handshake tries")
        return pair

    def _contents(self) -> Pair:
        ca = self._client_ca
        return Pair(
            self._key.read_bytes(),
            self._certificate.read_bytes(),
            None if ca is None else ca.read_bytes(),
        )


def _check_ca(pem: bytes, path: Path | None) -> None:
    """Refuse what holds no CA: gRPC would then trust those of the system."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", errors="replace"))
    except ssl.SSLError as error:
        raise ValueError(f"{path} holds no CA in PEM ({error.reason or error})") from error
