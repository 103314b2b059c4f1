"""Which scope of a key a method needs."""

from __future__ import annotations

from typing import Literal

Scope = Literal["infer", "manage"]

_V2 = "/inference.GRPCInferenceService/"

HEALTH = "/grpc.health.v1.Health/"
"""Probes and balancers have no key."""

MANAGEMENT = frozenset(
    _V2 + name
    for name in (
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    )
)
"""They change the server for all."""

# They say what there is; any key will do.
_DESCRIBING = frozenset(
    _V2 + name
    for name in (
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "SystemSharedMemoryStatus",
        "CudaSharedMemoryStatus",
    )
)
# They show what all callers do.
_MANAGING_SERVICES = ("/grpc.channelz.v1.Channelz/",)
_DESCRIBING_SERVICES = (
    "/bertd.v1.ModelService/",
    "/tei.v1.Info/",
    "/xds.service.orca.v3.OpenRcaService/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.reflection.v1.ServerReflection/",
)


def scope_of(method: str) -> Scope | None:
    """The scope for a method's path; None where any key will do."""
    if method in MANAGEMENT or method.startswith(_MANAGING_SERVICES):
        return "manage"
    if method in _DESCRIBING or method.startswith(_DESCRIBING_SERVICES):
        return None
    return "infer"
