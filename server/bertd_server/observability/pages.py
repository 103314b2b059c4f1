"""/metrics, /healthz, /readyz and / of one server.

::

    HTTP thread ──look, within some time──> the serving event loop ──ServerSnapshot──> page
                                              └── no answer: 503, the loop is stuck or gone
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import bertd
from prometheus_client import make_wsgi_app

from bertd_server.observability import metrics
from bertd_server.observability.endpoint import HttpRequest, HttpResponse, Page
from bertd_server.observability.metrics import ServerSnapshot, SnapshotCollector

_SECONDS = 2.0  # for the event loop to answer
_JSON = "application/json"


class StuckError(Exception):
    """The event loop does not answer."""


class Pages:
    """What a server says over HTTP; construct it on the server's event loop."""

    def __init__(
        self, look: Callable[[], ServerSnapshot], memory_limit: int, *, seconds: float = _SECONDS
    ) -> None:
        """Say what `look` sees.

        Args:
            look: gives the state; called on the event loop.
            memory_limit: of the process, in bytes.
            seconds: that the event loop has to answer.
        """
        self._look = look
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._collector = SnapshotCollector(memory_limit)
        self._exposition: Any = make_wsgi_app(metrics.registry(self._collector))

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {
            "/": self._index,
            "/metrics": self._metrics,
            "/healthz": self._healthy,
            "/readyz": self._ready,
        }

    async def _index(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002 - as every page
        """What there is."""
        paths = "\n".join(path for path in self.pages() if path != "/")
        return HttpResponse(HTTPStatus.OK, f"bertd {bertd.__version__}\n{paths}\n".encode())

    async def _metrics(self, request: HttpRequest) -> HttpResponse:
        """Metrics, in the format and the encoding that the scraper accepts."""
        try:
            state = await self._state()
        except StuckError as error:
            return _unavailable(error)
        self._collector.state = state  # read before anything else can run here
        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        body: Iterable[bytes] = self._exposition(
            environment, lambda status, headers: begun.append((status, headers))
        )
        status, headers = begun[0]
        named = {name.lower(): value for name, value in headers}
        return HttpResponse(
            HTTPStatus(int(status.partition(" ")[0])),
            b"".join(body),
            named.pop("content-type", "text/plain"),
            named,
        )

    async def _healthy(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002
        """Whether the process lives and its event loop turns."""
        try:
            await self._state()
        except StuckError as error:
            return _unavailable(error)
        return HttpResponse(HTTPStatus.OK, b"ok\n")

    async def _ready(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002
        """Whether calls are taken, and by which models."""
        try:
            state = await self._state()
        except StuckError as error:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "reason": str(error)})
        models = [
            {
                "name": view.name,
                "version": view.version,
                "task": view.task,
                "ready": state.ready and view.gauges.lanes_alive > 0,
                "lanes_alive": view.gauges.lanes_alive,
                "lanes": view.lanes,
            }
            for view in state.models
        ]
        status = HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(status, {"ready": state.ready, "draining": state.draining, "models": models})

    async def _state(self) -> ServerSnapshot:
        """The state of the server now.

        Raises:
            StuckError: its event loop does not answer in time, or is no more.
        """
        seen: Future[ServerSnapshot] = Future()
        asked = time.perf_counter()

        def look() -> None:
            lag = time.perf_counter() - asked
            try:
                seen.set_result(replace(self._look(), lag=lag))
            except Exception as error:  # noqa: BLE001 - it is the asker's
                seen.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(look)
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(seen)), self._seconds)
        except TimeoutError:
            raise StuckError(f"the event loop has not answered in {self._seconds:g} s") from None
        except RuntimeError as error:
            if seen.done():
                raise
            raise StuckError("the event loop has ended") from error


def _unavailable(error: StuckError) -> HttpResponse:
    return HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode())


def _json(status: HTTPStatus, value: object) -> HttpResponse:
    return HttpResponse(status, json.dumps(value).encode() + b"\n", _JSON)
