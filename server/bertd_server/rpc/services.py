"""All services, added to a gRPC server: our own, or one of somebody else's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import grpc
from bertd import oip
from bertd.oip import grpc_service_pb2_grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from bertd_server.models.catalogue import Catalogue
from bertd_server.models.repository import Repository, SingleBundle
from bertd_server.rpc import load_reports, tei, v2
from bertd_server.rpc.encoding import EncodingServer
from bertd_server.rpc.health import HealthService
from bertd_server.rpc.interceptors.decoding import DecodingInterceptor, request_classes
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.reflection import DescriptorPools
from bertd_server.rpc.v1 import InferenceService, ModelService
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.security.management import Management
from bertd_server.security.scopes import scope_of

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
_REQUESTS = request_classes(*SERVICES, *_STANDARD)
METHODS = frozenset(_REQUESTS)
"""Paths of all methods that a server of ours answers, but those that a setting adds."""
WORK = frozenset(method for method in METHODS if scope_of(method) == "infer")
"""Those that ask models."""


@dataclass
class Services:
    """The services over the models of a catalogue. Use them on one event loop.

    Attributes:
        models: those that answer.
        repository: what can change them.
        limits: of calls.
        health: says whether calls are answered; tell it.
        closing: set it to end streams with what they have sent.
    """

    models: Catalogue
    repository: Repository = field(init=False)
    limits: CallLimits = field(default_factory=CallLimits)
    health: HealthService = field(default_factory=lambda: HealthService(SERVICE_NAMES))
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.repository = SingleBundle(self.models)
        self.models.when_changed(self._tell_health)

    @staticmethod
    def interceptor(
        max_texts: int | None = None, memory: MemoryBudget | None = None
    ) -> grpc.aio.ServerInterceptor:
        """Put it last among a server's interceptors: it answers what is no valid message.

        Args:
            max_texts: of one call; None where that is not known.
            memory: of requests in flight; None for no limit.
        """
        return DecodingInterceptor(_REQUESTS, max_texts, memory)

    def add_to(self, server: grpc.aio.Server, management: Management) -> None:
        """Serve bertd.v1, tei.v1 and the Open Inference Protocol."""
        limits, encoding = self.limits, cast("grpc.aio.Server", EncodingServer(server))
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(
            InferenceService(self.models, limits, closing=self.closing), encoding
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self.models), server)
        tei.add_services(self.models, limits, server, self.closing)
        self.add_tensors_to(server, management)

    def add_tensors_to(self, server: grpc.aio.Server, management: Management) -> None:
        """Serve the Open Inference Protocol alone."""
        service = v2.OpenInferenceService(
            self.models,
            self.repository,
            management,
            limits=self.limits,
            serving=lambda: self.health.serving,
            closing=self.closing,
        )
        encoding = cast("grpc.aio.Server", EncodingServer(server))
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, encoding)

    def add_health_to(self, server: grpc.aio.Server) -> None:
        """Serve grpc.health.v1."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)

    def add_reflection_to(self, server: grpc.aio.Server, *others: str) -> None:
        """Serve reflection, of other services too, whose names are given."""
        pools = DescriptorPools([oip.POOL, load_reports.POOL, descriptor_pool.Default()])
        reflection.enable_server_reflection(
            [*SERVICE_NAMES, *others, health.SERVICE_NAME, reflection.SERVICE_NAME],
            server,
            pool=cast("descriptor_pool.DescriptorPool", pools),
        )

    def _tell_health(self) -> None:
        """Which models there are, and which services none of them answers."""
        self.health.report_models(model.name for model in self.models.newest())
        self.health.leave_out(tei.unanswered(self.models))
