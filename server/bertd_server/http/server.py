"""HTTP as a part of a server: its socket, its connections, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from ssl import SSLContext
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from bertd_server.http.connections import ConnectionLimits, HttpConnection
from bertd_server.http.front import Front

_BACKLOG = 128
_FOREVER = 10.0**9  # seconds
_END_SECONDS = 1.0  # for the last bytes of what was cut short


class HttpServer:
    """Serves an application. Use it on one event loop.

    Attributes:
        port: that is listened on; 0 before.
    """

    port = 0

    def __init__(
        self,
        front: Front,
        limits: ConnectionLimits,
        *,
        tls: SSLContext | None,
        idle_seconds: float,
    ) -> None:
        """Serve an application, from :meth:`listen` on.

        Args:
            front: the application.
            limits: of connections.
            tls: with the certificate; None for none.
            idle_seconds: after which a connection without calls is closed; 0 for never.
        """
        self._front = front
        self._limits = limits
        self._tls = tls
        self._config = uvicorn.Config(
            front,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=idle_seconds or _FOREVER,  # type: ignore[arg-type] # seconds
        )
        self._config.load()
        # It warns of each client that speaks no HTTP, which strangers may do as often as they like.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._state.connections)

    def bind(self, host: str, port: int) -> int:
        """Take the address; returns the port.

        Raises:
            OSError: it is taken, or not one of this machine.
        """
        family, *_, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.create_server(place[:2], family=family, backlog=_BACKLOG)
        self.port = self._socket.getsockname()[1]
        return self.port

    async def start(self) -> None:
        """Answer who connects."""
        assert self._socket is not None  # noqa: S101 - bind() has been called
        seconds = self._limits.head_seconds
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._socket,
            ssl=self._tls,
            backlog=_BACKLOG,
            ssl_handshake_timeout=seconds if self._tls else None,
        )

    def _connection(self) -> HttpConnection:
        return HttpConnection(self._config, self._state, self._limits)

    async def stop(self, seconds: float | None) -> None:
        """Take no more calls, and let those that are there end; after so many seconds cut them."""
        if self._server is None:
            if self._socket is not None:
                self._socket.close()
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._end_of_tasks(seconds or 0.0)
        self._front.closing = True
        for task in self._state.tasks:
            task.cancel()
        await self._end_of_tasks(_END_SECONDS)
        for connection in list(self._state.connections):
            transport: Any = connection.transport
            with contextlib.suppress(RuntimeError):
                transport.abort() if transport.get_write_buffer_size() else transport.close()

    async def _end_of_tasks(self, seconds: float) -> None:
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=seconds)
