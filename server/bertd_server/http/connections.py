"""Connections: how many there are, and how long a client may keep one waiting.

uvicorn speaks HTTP; what it leaves open is closed here: heads of any size, or that never end,
answers that nobody reads, and calls whose clients have left.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_MOST_HEAD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Of connections.

    Attributes:
        connections: at once; 0 for no limit.
        head_seconds: for the head of a request, from its first byte, or the connection's begin.
        unread_seconds: that a client may let what it is sent lie.
    """

    connections: int
    head_seconds: float
    unread_seconds: float


class HttpConnection(HttpToolsProtocol):
    """A client's connection."""

    def __init__(self, config: Config, state: ServerState, limits: ConnectionLimits) -> None:
        """Await requests.

        Args:
            config: of uvicorn; its application answers.
            state: of all connections.
            limits: of all connections.
        """
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._limits = limits
        self._head_bytes = 0
        self._in_head = True
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._answering: tuple[asyncio.Task[None], Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room."""
        limit = self._limits.connections
        if limit and len(self.connections) >= limit:
            transport.abort()
            return
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what nobody waits for."""
        if self not in self.connections:  # it was one too many
            return
        self._head_is_there()
        self._read_on()
        super().connection_lost(exc)
        if self._answering is not None:
            task, cycle = self._answering
            if not cycle.response_complete:
                cycle.disconnected = True  # it need not be the last of several that were sent
                task.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes, of a head only so many."""
        if self not in self.connections or self.transport.is_closing():
            return
        if self._in_head:
            if self._late is None:
                self._await_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MOST_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head, self._head_bytes = False, 0
        self._head_is_there()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next byte is that of another head."""
        self._in_head = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        seconds = self._limits.unread_seconds
        self._unread = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        self._read_on()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection without calls, whether its client reads what it was sent or not."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """As uvicorn does; the task is kept, to be cancelled with its connection."""
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(cast("asyncio.Task[None]", task))
        self._answering = task, cycle

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_head(self) -> None:
        self._late = self.loop.call_later(self._limits.head_seconds, self.transport.abort)

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
