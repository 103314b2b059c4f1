"""A small HTTP server: some paths, GET and HEAD, one request a connection.

::

    own thread, own event loop:  connection ──> request line, headers ──> page ──> response
                                     │               └── seconds, bytes         └── seconds
                                     └── all taken: the one whose client has kept it waiting longest
                                         makes room

It stands apart from the event loop that serves, so that it can say when that one is stuck, and a
client that is slow, here, holds nothing up there. A probe sends its request at once and reads its
answer, so that it is answered beside any number of connections that do neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from bertd_server.system.logs import get_logger

log = get_logger("bertd")

_MOST_CONNECTIONS = 64
_MOST_HEADER_BYTES = 8_192
_HEAD_SECONDS = 2.0  # for the request; whoever asks this server has it in one packet
_SECONDS = 10.0  # for all of a request and its response
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a page may look at; names of headers are in lower case."""

    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What is sent back."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Page = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Endpoint:
    """Serves pages from a thread of its own, between `start` and `stop`."""

    def __init__(self, pages: Mapping[str, Page], *, seconds: float = _SECONDS) -> None:
        """Take pages by path.

        Args:
            pages: each is awaited on this server's own event loop.
            seconds: that a request and its response may take.
        """
        self._pages = pages
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bertd-http", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._waited_for: dict[asyncio.Task[None], asyncio.WriteTransport] = {}  # the oldest first
        self._listening: socket.socket | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            OSError: the address is taken, or not one of this machine.
        """
        try:
            family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._listening = socket.create_server(place[:2], family=family, backlog=128)
        except OSError:
            self._loop.close()
            raise
        self._thread.start()
        bound: int = self._listening.getsockname()[1]
        return bound

    def stop(self) -> None:
        """Take no more connections, and end those that there are."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(
            self._connected, sock=self._listening, limit=_MOST_HEADER_BYTES
        )
        server = self._loop.run_until_complete(serving)
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a stream's callback is one
        if len(self._connections) >= _MOST_CONNECTIONS and not self._make_room():
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(self._seconds):
                    await self._serve(task, reader, writer)
        finally:
            self._connections.discard(task)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it does not read, and shall not be waited for
            else:
                writer.close()

    def _make_room(self) -> bool:
        """End the connection whose client has kept it waiting longest; whether there is one."""
        slowest = next(iter(self._waited_for), None)
        if slowest is None:
            return False
        self._waited_for.pop(slowest).abort()
        self._connections.discard(slowest)
        return True

    @contextlib.contextmanager
    def _waiting(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> Iterator[None]:
        """It is the client's turn, who may not keep the connection while others have none."""
        self._waited_for[task] = writer.transport
        try:
            yield
        finally:
            self._waited_for.pop(task, None)

    async def _serve(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            with self._waiting(task, writer):
                async with asyncio.timeout(min(_HEAD_SECONDS, self._seconds)):
                    head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            writer.write(
                _encoded(_plain(status, f"headers are at most {_MOST_HEADER_BYTES} bytes"))
            )
        else:
            writer.write(await self._answer(head.decode("latin-1")))
        with self._waiting(task, writer):
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
                await reader.read(_MOST_HEADER_BYTES)  # what it sends must not reset the answer

    async def _answer(self, head: str) -> bytes:
        line, *rest = head.split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _encoded(_plain(HTTPStatus.BAD_REQUEST, "this is not HTTP/1"))
        method, target, _ = words
        path, _, query = target.partition("?")
        page = self._pages.get(path)
        if page is None:
            response = _plain(HTTPStatus.NOT_FOUND, f"there are {', '.join(sorted(self._pages))}")
        elif method not in {"GET", "HEAD"}:
            response = _plain(HTTPStatus.METHOD_NOT_ALLOWED, "use GET", allow="GET, HEAD")
        else:
            named = (each.partition(":") for each in rest if each)
            headers = {name.strip().lower(): value.strip() for name, _, value in named}
            try:
                response = await page(HttpRequest(query, headers))
            except Exception:
                log.exception("a page failed", path=path)
                response = _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "see the server's log")
        return _encoded(response, body=method != "HEAD")


def _plain(status: HTTPStatus, text: str, **headers: str) -> HttpResponse:
    return HttpResponse(status, f"{text}\n".encode(), headers=headers)


def _encoded(response: HttpResponse, *, body: bool = True) -> bytes:
    headers = {
        "content-type": response.content_type,
        "content-length": str(len(response.body)),
        "connection": "close",
        "cache-control": "no-store",
        **response.headers,
    }
    status = response.status
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (response.body if body else b"")
