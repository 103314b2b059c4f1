"""A server: models, services, and the addresses on which they answer.

::

    settings ──> guard: certificates, keys      ─┐
             ──> services over a catalogue      ─┼──> gRPC servers: --address, --management-address
                                                 │    HTTP: --http-api
             ──> observability: metrics, spans  ─┘
             ──> loader, keeper ──> catalogue of models

listen ──> NOT_SERVING, calls are refused as UNAVAILABLE ──> load ──> SERVING ──> drain

It takes no signals and ends no process: :mod:`bertd_server.process.app` does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bertd_server.config.reloading import Reloading
from bertd_server.config.settings import OFF, ON, UNIX, Settings
from bertd_server.errors import CannotServeError
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.keeper import Keeper
from bertd_server.models.loading import Loader
from bertd_server.models.model import Model
from bertd_server.models.startup import Start, start
from bertd_server.rpc import load_reports
from bertd_server.rpc.health import HealthService
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.services import METHODS, SERVICE_NAMES, WORK, Services
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.security.management import Management
from bertd_server.security.paths import version_of
from bertd_server.serving.assembly import Observability, add_channelz, reported_load
from bertd_server.serving.guard import Guard
from bertd_server.system.exits import Exit
from bertd_server.system.logs import get_logger

if TYPE_CHECKING:
    from bertd_server.http.server import HttpServer

log = get_logger("bertd")

# A batch that still runs when the calls' time is up may take so long to end.
LAST_BATCH_SECONDS = 1.0
LAST_WORDS = 0.5  # seconds for calls that a drain ends to say so, before gRPC just ends them
_REQUEST_BYTES = 2**30  # that requests in flight may take where no memory limit says


class CannotListenError(RuntimeError):
    """The address cannot be listened on."""


class Server:
    """A gRPC server over one bundle, or over a repository. Use it on one event loop.

    Attributes:
        catalogue: the models that answer.
        guard: its certificates and keys; `guard.reload()` reads them anew.
        reloading: what SIGHUP reads again; parts of the server register there.
        observability: metrics, traces and the access log.
        memory: of requests in flight.
        port: of the main address, once it listens; 0 where that is no port.
        management_port: of the management address, once it listens.
        http: what answers over HTTP; None where it is off.
        reported_load: what balancers are told; None where it is off.
    """

    port = 0
    management_port = 0

    def __init__(self, folder: Path | None, settings: Settings, start: Start = start) -> None:
        """Read certificates and keys; nothing listens or is loaded yet.

        Args:
            folder: the bundle; None for the repository of the settings.
            settings: of the server.
            start: makes the engine; a measurement of all else gives one that answers at once.

        Raises:
            MisusedError: a file that the settings name, or what they say together, is wrong.
        """
        self._settings = settings
        self._folder = folder
        self._sockets: list[Path] = []
        self.reloading = Reloading(settings)
        self.reloading.on_settings(self._relimit)
        self.guard = Guard(settings)
        if settings.tls_certificate or settings.api_keys:
            self.reloading.add("certificates and keys", self.guard.reload)
        self.catalogue = Catalogue(settings.default_model)
        self._services = Services(
            self.catalogue,
            CallLimits(
                settings.max_texts_per_call,
                settings.max_message_bytes,
                caches=settings.cache_bytes > 0,
            ),
            HealthService(SERVICE_NAMES, settings.max_health_watches),
        )
        self._health = self._services.health
        self.memory = MemoryBudget(_REQUEST_BYTES)
        self._loader = Loader(
            settings,
            on_lanes=lambda alive: self._health.report(serving=alive > 0),
            start=start,
            memory=self.memory,
        )
        self._keeper: Keeper | None = None
        if folder is None and settings.repository is None:
            raise CannotServeError("nothing to serve: give a bundle, or --repository")
        if folder is None and settings.repository is not None:
            self._keep(settings.repository)
        self.catalogue.starts()
        self._health.starts()
        self.observability = Observability(
            settings,
            self._health,
            self.catalogue.models,
            METHODS,
            self.memory,
        )
        self.reported_load = reported_load(self.reloading, self.catalogue.models)
        self._grpc = self._grpc_server()
        self._services.add_to(self._grpc, self.guard.management)
        self._services.add_health_to(self._grpc)
        others = [add_channelz(self._grpc)] if settings.channelz == ON else []
        others += load_reports.add_service(self.reported_load, self._services.closing, self._grpc)
        self._services.add_reflection_to(self._grpc, *others)
        self.http = self._http_server() if settings.http_api != OFF else None
        self._managed: grpc.aio.Server | None = None
        if settings.management_address:
            self._managed = self._grpc_server()
            self._services.add_tensors_to(self._managed, Management())
            self._services.add_health_to(self._managed)

    def _http_server(self) -> HttpServer:
        from bertd_server.http import http_server  # noqa: PLC0415 - only where HTTP is on

        monitors = self.observability.interceptors
        return http_server(
            self._settings,
            self._services,
            self.guard.management,
            keys=self.guard.keys,
            tls=self.guard.context(),
            monitor=monitors[0].around if monitors else None,
            grpc_address=lambda: listening(self._settings.address, self.port),
            memory=self.memory,
        )

    def _keep(self, root: Path) -> None:
        settings = self._settings
        self._keeper = Keeper(
            root,
            self.catalogue,
            self._loader,
            mode=settings.model_control,
            poll_seconds=settings.poll_seconds,
            drain_seconds=lambda: self.reloading.settings.drain_seconds,
        )
        self._services.repository = self._keeper
        if settings.model_control == "poll":
            self.reloading.add("repository", self._keeper.refresh)

    def _grpc_server(self) -> grpc.aio.Server:
        """A gRPC server with the limits of the settings, which answers nothing yet."""
        return grpc.aio.server(
            interceptors=[
                *self.observability.interceptors,
                *self.guard.interceptors,
                *load_reports.interceptors(self.reported_load, WORK),
                self._services.interceptor(self._services.limits.max_texts, self.memory),
            ],
            options=[
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                *self.guard.options,
            ],
        )

    @property
    def model(self) -> Model:
        """The only model, or the default one."""
        return self.catalogue.find("")

    def models(self) -> list[Model]:
        """All that are loaded, those included that answer no new calls any more."""
        return [*self.catalogue.models(), *(self._keeper.retiring if self._keeper else ())]

    @property
    def serving(self) -> bool:
        """Whether calls can be answered now."""
        return self._health.serving

    @property
    def loading(self) -> bool:
        """Whether a thread reads a bundle of the repository; it cannot be told to stop."""
        return self._loader.busy

    async def start(self) -> int:
        """Listen, then load; returns the port.

        Raises:
            CannotListenError: an address is taken, or not one of this machine.
            bundle.BundleError: the folder is not a bundle, or not an intact one.
            CannotServeError: the provider, the memory or a model to serve is not there.
        """
        port = await self.listen()
        await self.load()
        return port

    async def listen(self) -> int:
        """Take all addresses; returns the port of the main one.

        Until :meth:`load` has ended, health says NOT_SERVING and calls are refused as UNAVAILABLE.

        Raises:
            CannotListenError: one is taken, or not one of this machine.
        """
        settings = self._settings
        self.port = self._listen(self._grpc, settings.address, "--address")
        try:
            if self._managed is not None:
                address = settings.management_address
                self.management_port = self._listen(self._managed, address, "--management-address")
            if self.http is not None:
                self._bind(self.http)
            try:
                self.observability.listen()
            except OSError as error:
                raise CannotListenError(
                    f"cannot listen on {settings.http_address}: {error.strerror or error}; "
                    "choose another with --http-address, or off"
                ) from error
        except CannotListenError:
            self.leave_sockets()
            raise
        if self._managed is not None:
            await self._managed.start()
            log.info(
                "management", address=listening(settings.management_address, self.management_port)
            )
        await self._grpc.start()
        if self.http is not None:
            await self.http.start()
            log.info("http api", address=listening(settings.http_api, self.http.port))
        return self.port

    def _bind(self, http: HttpServer) -> None:
        """Take the address of HTTP."""
        host, _, port = self._settings.http_api.rpartition(":")
        try:
            http.bind(host, int(port))
        except OSError as error:
            raise CannotListenError(
                f"cannot listen on {self._settings.http_api}: {error.strerror or error}; choose "
                "another with --http-api, or off"
            ) from error

    async def load(self) -> None:
        """Load the bundle, or the repository's models, and answer calls from then on.

        Raises:
            bundle.BundleError: the folder is not a bundle, or not an intact one.
            CannotServeError: the provider, the memory or a model to serve is not there.
        """
        if self._folder is not None:
            version = version_of(self._folder)
            name = self._settings.name
            self.catalogue.put(await self._loader.load_aside(self._folder, name, version))
        if self._keeper is not None:
            names = self._settings.load_models
            await self._keeper.start(filter(None, map(str.strip, names.split(","))))
        self.catalogue.starts(starting=False)
        self._health.starts(starting=False)

    def _listen(self, server: grpc.aio.Server, address: str, flag: str) -> int:
        path = Path(address.removeprefix(UNIX)) if address.startswith(UNIX) else None
        # gRPC would take a socket's file away from whoever listens there.
        port = 0 if path is not None and _answers(path) else self._port(server, address)
        if not port:
            raise CannotListenError(
                f"cannot listen on {address}: {_obstacle(address)}; choose another with {flag}"
            )
        if path is not None:
            self._sockets.append(path)
        return port

    def _port(self, server: grpc.aio.Server, address: str) -> int:
        """The port that is taken; 0 where none can be."""
        try:
            return self.guard.listen(server, address)
        except RuntimeError:
            return 0

    async def abandon(self) -> None:
        """Stop listening, as nothing can be served."""
        await asyncio.gather(*(server.stop(None) for server in self._servers()))
        self.guard.close()
        self._loader.close()
        await self.observability.stop()

    def _servers(self) -> list[grpc.aio.Server | HttpServer]:
        """All that take calls."""
        return [one for one in (self._grpc, self._managed, self.http) if one is not None]

    def leave_sockets(self) -> None:
        """Remove the files of Unix sockets, where the process ends without a drain."""
        for path in self._sockets:
            path.unlink(missing_ok=True)

    async def drain(self) -> Exit:
        """Report NOT_SERVING, wait for balancers, finish in-flight calls, stop.

        Returns:
            `FINISHED`, `CANCELLED`, or `NEVER_ENDED`: then a batch still runs.
        """
        loop, settings = asyncio.get_running_loop(), self.reloading.settings
        self._health.leave()
        if settings.drain_delay_seconds:
            await asyncio.sleep(settings.drain_delay_seconds)
        if self._keeper is not None:
            self._keeper.stop_looking()
        models = self.models()
        cancelled = _cut_short(models)
        limit = settings.drain_seconds
        end = loop.time() + limit
        self._health.drain()
        self._services.closing.set()
        stopping = asyncio.gather(*(each.stop(limit + LAST_WORDS) for each in self._servers()))
        await asyncio.wait([stopping], timeout=limit)
        given_up = 0
        if not stopping.done():
            given_up = self.memory.give_up() + sum(model.give_up() for model in models)
        await stopping
        self.guard.close()
        late = loop.time() >= end
        end = max(end, loop.time() + LAST_BATCH_SECONDS)
        if self._keeper is not None:
            await self._keeper.close(end - loop.time())
        left = max(0.0, end - loop.time())
        ended = await asyncio.gather(*(model.drain(left) for model in models))
        finished = all(ended)
        self._loader.close(wait=finished)
        await self.observability.stop()
        cut = _cut_short(models) - cancelled + given_up
        if late and cut:
            remedy = "a larger --drain-seconds gives them time"
            log.warning("calls were cancelled", texts=cut, limit_seconds=limit, remedy=remedy)
        if not finished:
            return Exit.NEVER_ENDED
        return Exit.CANCELLED if late and cut else Exit.FINISHED

    def _relimit(self, settings: Settings) -> None:
        """Put reloaded limits into effect."""
        self._loader.settings = settings
        self._loader.relimit(self.catalogue.models())


def _cut_short(models: Iterable[Model]) -> int:
    """Texts, and what was to be made of answers, whose calls went away."""
    return sum(model.statistics.cancelled + model.statistics.dropped for model in models)


def listening(address: str, port: int) -> str:
    """The address with the port that was taken where 0 was asked for."""
    return address if address.startswith(UNIX) else f"{address.rpartition(':')[0]}:{port}"


def _answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket; the file of one that was killed is not enough."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _obstacle(address: str) -> str:
    """Why nothing can listen there, in the system's words; gRPC does not say."""
    if not address.startswith(UNIX):
        host, _, port = address.rpartition(":")
        try:
            places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            for family, kind, protocol, _, place in places:
                with socket.socket(family, kind, protocol) as probe:
                    probe.bind(place)
        except OSError as error:
            return error.strerror or str(error)
    return "it may be in use"
