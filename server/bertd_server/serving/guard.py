"""All of this package that one server needs, from its settings.

What is not asked for is not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from bertd_server.config.settings import UNIX, Settings
from bertd_server.security import exposure, transport
from bertd_server.security.connections import ConnectionWatch
from bertd_server.security.management import Management

if TYPE_CHECKING:
    from ssl import SSLContext

    from bertd_server.rpc.interceptors.authentication import KeyInterceptor
    from bertd_server.security.certificates import Certificates
    from bertd_server.security.keys import KeyRing


class Guard:
    """Opens ports, and says what stands on the way of a call.

    Attributes:
        interceptors: of every gRPC server, outermost; none where there are no keys.
        options: of every gRPC server.
        management: the policy of the main address.
        keys: that calls need; None where they need none.
    """

    def __init__(self, settings: Settings) -> None:
        """Read certificates and keys.

        Raises:
            MisusedError: they are not there, or the settings would serve strangers.
        """
        exposure.check(settings)
        self._certificates: Certificates | None = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            from bertd_server.security.certificates import Certificates  # noqa: PLC0415

            self._certificates = Certificates(
                settings.tls_certificate, settings.tls_key, settings.tls_client_ca
            )
        self.keys: KeyRing | None = None
        self.interceptors: list[KeyInterceptor] = []
        if settings.api_keys is not None:
            from bertd_server.rpc.interceptors.authentication import KeyInterceptor  # noqa: PLC0415
            from bertd_server.security.keys import KeyRing  # noqa: PLC0415

            self.keys = KeyRing(settings.api_keys)
            self.interceptors = [KeyInterceptor(self.keys)]
        self.options = transport.options(settings)
        self._settings = settings
        self._watches: list[ConnectionWatch] = []
        self.management = Management.of(
            elsewhere=bool(settings.management_address), keys=self.keys is not None
        )

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """Open a port of a server, with TLS where there is a certificate; returns its number.

        Its connections are watched until :meth:`close`, on the running loop.

        Raises:
            RuntimeError: gRPC cannot.
        """
        if self._certificates is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, self._certificates.credentials())
        if not address.startswith(UNIX):
            transport.defer_accept(port, self._settings.handshake_seconds)
            watch = ConnectionWatch(
                port, self._settings.max_connections_per_peer, self._settings.max_connections
            )
            watch.start()
            self._watches.append(watch)
        return port

    def context(self) -> SSLContext | None:
        """TLS of a port that is not gRPC's; None without."""
        return None if self._certificates is None else self._certificates.context()

    def close(self) -> None:
        """Look at connections no more."""
        for watch in self._watches:
            watch.stop()

    def reload(self) -> bool:
        """Read certificates and keys now; what cannot be read stays as it was.

        Returns:
            whether all could be.
        """
        kept = [] if self._certificates is None else [self._certificates.reload()]
        if self.keys is not None:
            kept.append(self.keys.reload())
        return all(kept)
