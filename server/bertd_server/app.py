"""Composition and life cycle: the one file that sees everything.

serve = load -> listen -> wait for a signal, or for trouble that does not heal
     -> NOT_SERVING -> wait for balancers -> finish in-flight calls -> stop
        a second signal ends the process at once
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import cast

import grpc
import structlog
from bertd import oip
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from bertd_server import logs
from bertd_server.engine import EngineOptions
from bertd_server.exits import Exit
from bertd_server.life import Life
from bertd_server.model import Model, ModelOptions, Start
from bertd_server.observing.assembly import Observing, add_channelz
from bertd_server.reloading import Reloading
from bertd_server.scheduler import SchedulerOptions
from bertd_server.security.guard import Guard
from bertd_server.services import tei, v2
from bertd_server.services.decoding import DecodingInterceptor, request_classes
from bertd_server.services.health import HealthService
from bertd_server.services.reflecting import Pools
from bertd_server.services.v1 import InferenceService, ModelService
from bertd_server.settings import ON, UNIX, Settings
from bertd_server.startup import StartOptions, start
from bertd_server.text_queue import TextOptions
from bertd_server.watch import Watch

log = structlog.get_logger("bertd")

SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
    models_pb2.DESCRIPTOR.services_by_name["ModelService"],
    *tei.SERVICES,
    v2.SERVICE,
)
SERVICE_NAMES = tuple(service.full_name for service in SERVICES)
# Not known by the stubs of the packages that have them to be what they are.
_STANDARD = (
    cast("ServiceDescriptor", health_pb2.DESCRIPTOR.services_by_name["Health"]),
    cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]),
)


REQUESTS: dict[Task, str] = {
    "feature-extraction": "embed '안녕하세요' 'hello world'",
    "text-classification": "classify 'a fine film'",
    "zero-shot-classification": "zero-shot 'a fine film' --label cinema --label sport",
    "text-ranking": "rerank 'who wrote it' 'Ada Lovelace wrote it' 'it rains'",
    "token-classification": "tag 'Ada Lovelace lived in London'",
    "question-answering": "answer 'who wrote it' --context 'Ada Lovelace wrote it in 1843'",
    "fill-mask": "fill 'Paris is the capital of [MASK].'",
}

# A batch that still runs when the calls' time is up may take so long to end.
LAST_BATCH_SECONDS = 1.0


class CannotListenError(RuntimeError):
    """The address cannot be listened on."""


class Server:
    """A gRPC server over one bundle.

    Attributes:
        model: that it serves.
        guard: its certificates and keys; `guard.reload()` reads them anew.
        reloading: what SIGHUP reads again; parts of the server register there.
        management_port: of the management address, once it listens.
    """

    management_port = 0

    def __init__(self, folder: Path, settings: Settings, start: Start = start) -> None:
        """Load a bundle.

        Args:
            folder: the bundle.
            settings: of the server.
            start: makes the engine; a measurement of all else gives one that answers at once.
        """
        self._settings = settings
        self.reloading = Reloading(settings)
        self.reloading.on_settings(self._relimit)
        self.guard = Guard(settings)
        if settings.tls_certificate or settings.api_keys:
            self.reloading.add("certificates and keys", self.guard.reload)
        self._health = HealthService(SERVICE_NAMES)
        self.model = Model.load(
            folder,
            _model_options(settings),
            on_lanes=lambda alive: self._health.report(serving=alive > 0),
            start=start,
        )
        models = {self.model.manifest.name: self.model}
        self.observing = Observing(
            settings,
            self._health,
            lambda: ((name, model.version, model) for name, model in models.items()),
        )
        self._grpc = self._grpc_server()
        max_texts = settings.max_texts_per_call
        self._closing = asyncio.Event()
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(
            InferenceService(models, max_texts=max_texts, closing=self._closing), self._grpc
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), self._grpc)
        limits = tei.Limits(max_texts, settings.max_message_bytes)
        tei.add_services(models, limits, self._grpc, self._closing)
        self._health.leave_out(tei.unanswered(models))
        for name in models:
            self._health.report_model(name, serving=True)
        tensors = partial(
            v2.InferenceService,
            models,
            max_texts=max_texts,
            caches=settings.cache_bytes > 0,
            serving=lambda: self._health.serving,
            closing=self._closing,
        )
        service = tensors()
        service.management = self.guard.management
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, self._grpc)
        self._managed: grpc.aio.Server | None = None
        if settings.management_address:
            self._managed = self._grpc_server()
            grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
                tensors(), self._managed
            )
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._managed)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        pools = Pools([oip.POOL, descriptor_pool.Default()])
        channelz = [add_channelz(self._grpc)] if settings.channelz == ON else []
        reflection.enable_server_reflection(
            [*SERVICE_NAMES, *channelz, health.SERVICE_NAME, reflection.SERVICE_NAME],
            self._grpc,
            pool=cast("descriptor_pool.DescriptorPool", pools),
        )

    def _grpc_server(self) -> grpc.aio.Server:
        """A gRPC server with the limits of the settings, which answers nothing yet."""
        decoding = DecodingInterceptor(request_classes(*SERVICES, *_STANDARD))
        return grpc.aio.server(
            interceptors=[*self.observing.interceptors, *self.guard.interceptors, decoding],
            options=[
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                *self.guard.options,
            ],
        )

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            CannotListenError: an address is taken, or not one of this machine.
        """
        port = self._listen(self._grpc, self._settings.address, "--address")
        if self._managed is not None:
            address = self._settings.management_address
            self.management_port = self._listen(self._managed, address, "--management-address")
            await self._managed.start()
            log.info("management", address=_listening(address, self.management_port))
        try:
            self.observing.listen()
        except OSError as error:
            raise CannotListenError(
                f"cannot listen on {self._settings.http_address}: {error.strerror or error}; "
                "choose another with --http-address, or off"
            ) from error
        await self._grpc.start()
        return port

    def _listen(self, server: grpc.aio.Server, address: str, flag: str) -> int:
        try:
            return self.guard.listen(server, address)
        except RuntimeError as error:
            raise CannotListenError(
                f"cannot listen on {address}: {_obstacle(address)}; choose another with {flag}"
            ) from error

    @property
    def serving(self) -> bool:
        """Whether calls can be answered now."""
        return self._health.serving

    async def drain(self) -> Exit:
        """Report NOT_SERVING, wait for balancers, finish in-flight calls, stop.

        Returns:
            `FINISHED`, `CANCELLED`, or `NEVER_ENDED`: then a batch still runs.
        """
        loop, statistics = asyncio.get_running_loop(), self.model.statistics
        self._health.leave()
        if delay := self.reloading.settings.drain_delay_seconds:
            await asyncio.sleep(delay)
        limit, cancelled = self.reloading.settings.drain_seconds, statistics.cancelled
        end = loop.time() + limit
        self._health.drain()
        self._closing.set()
        servers = [self._grpc] if self._managed is None else [self._grpc, self._managed]
        await asyncio.gather(*(server.stop(limit) for server in servers))
        late = loop.time() >= end
        finished = await self.model.drain(max(LAST_BATCH_SECONDS, end - loop.time()))
        await self.observing.stop()
        cut = late and statistics.cancelled > cancelled
        if cut:
            log.warning(
                "calls were cancelled",
                texts=statistics.cancelled - cancelled,
                limit_seconds=limit,
                remedy="a larger --drain-seconds gives them time",
            )
        if not finished:
            return Exit.NEVER_ENDED
        return Exit.CANCELLED if cut else Exit.FINISHED

    def _relimit(self, settings: Settings) -> None:
        """Put reloaded limits into effect."""
        self.model.relimit(
            max_queue_tokens=settings.max_queue_tokens,
            max_queue_seconds=settings.max_queue_seconds,
            max_queue_characters=settings.max_queue_characters,
        )


def _model_options(settings: Settings) -> ModelOptions:
    """The settings that belong to the model."""
    return ModelOptions(
        engine=EngineOptions(
            threads=settings.threads,
            lanes=settings.lanes,
            provider=settings.provider,
            niceness=settings.lane_niceness,
            profile=settings.profile,
            cache=settings.cache_folder,
        ),
        scheduling=SchedulerOptions(
            **{field.name: getattr(settings, field.name) for field in fields(SchedulerOptions)}
        ),
        texts=TextOptions(settings.max_text_characters, settings.max_queue_characters),
        starting=StartOptions(
            memory_limit=settings.memory_limit,
            cache_bytes=settings.cache_bytes,
            warmup_seconds=settings.warmup_seconds,
            calibration_seconds=settings.calibration_seconds,
            cache=settings.cache_folder,
        ),
    )


async def serve(folder: Path, settings: Settings, reread: Callable[[], Settings]) -> Exit:
    """Serve a bundle until SIGINT or SIGTERM, then drain. A second one ends the process.

    Args:
        folder: the bundle.
        settings: of the server.
        reread: gives them anew, with SIGHUP.

    Returns:
        how it ended.
    """
    life = Life()
    server = Server(folder, settings)
    server.reloading.reread = reread
    server.reloading.on_settings(lambda new: logs.configure(new.log_format, new.log_level))
    port = await server.start()
    settle()
    log.info(
        "serving",
        model=server.model.manifest.name,
        address=_listening(settings.address, port),
        http=server.observing.http_address or None,
        lanes=settings.lanes,
        threads=settings.threads,
        request=_request(server.model.manifest.task, settings.address, port)
        + (" --tls" if settings.tls_certificate else ""),
    )
    life.ready(
        f"serving {server.model.manifest.name}", lambda: server.serving, server.reloading.reload
    )
    Watch(
        lambda: (server.model,),
        seconds=settings.watchdog_seconds,
        memory_limit=settings.memory_limit,
    ).start(life.trouble)
    await life.ending.wait()
    life.drains(lambda number: _end(number, server.model))
    log.info("draining", limit_seconds=server.reloading.settings.drain_seconds)
    drained = await server.drain()
    log.info("stopped", **server.model.statistics.counts())
    return life.exit(drained)


def settle() -> None:
    """Take all objects of this process for permanent: collections look through new ones alone."""
    gc.collect()
    gc.freeze()


def _end(number: int, model: Model) -> None:
    """End the process at once: somebody has asked twice."""
    gauges = model.gauges()
    log.error(
        "ended by a second signal",
        texts_waiting=gauges.waiting,
        batches_running=gauges.batches_running,
    )
    os._exit(128 + number)  # as a shell reports a process that a signal has ended


def _request(task: Task, address: str, port: int) -> str:
    """A command to paste into another terminal."""
    command = sys.argv[0] if Path(sys.argv[0]).name == "bertd" else "bertd"
    server = _listening(address, port)
    there = "" if server == Settings.model_fields["address"].default else f" --address {server}"
    return f"{command} {REQUESTS[task]}{there}"


def _listening(address: str, port: int) -> str:
    """The address with the port that was taken where 0 was asked for."""
    return address if address.startswith(UNIX) else f"{address.rpartition(':')[0]}:{port}"


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
