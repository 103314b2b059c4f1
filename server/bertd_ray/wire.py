"""What proxy and replica say to each other beside the messages; imports no server.

::

    proxy ──metadata: the path, the milliseconds left──────────────────────────────────> replica
    proxy <──trailers, with those for the head of the answer; END of a failed stream──── replica
"""

from __future__ import annotations

from bertd.oip import grpc_service_pb2
from bertd.tei.v1 import tei_pb2
from bertd.v1 import inference_pb2, models_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

RPC = "bertd-rpc"
"""Key of the metadata that has the whole path; Ray passes on its last part."""
TIMEOUT = "bertd-timeout-ms"
"""Key of the metadata that has the milliseconds until the deadline; Ray passes none on."""
HEAD = "bertd-head-"
"""Trailers whose keys begin so belong to the head of the answer; Ray has trailers alone."""
END = b"\x00"
"""In the place of a message: the stream has failed. No message begins with a zero."""
SERVICERS = "bertd_ray.serve.add_services"
"""What Serve's gRPC options must name in `grpc_servicer_functions`."""

_FILES = (inference_pb2, models_pb2, tei_pb2, grpc_service_pb2, health_pb2, reflection_pb2)
# It would speak of one replica of many, and keep that one from ending.
_LEFT_OUT = "/grpc.health.v1.Health/Watch"


def _services() -> list[ServiceDescriptor]:
    found: list[ServiceDescriptor] = []
    for file in _FILES:
        found += file.DESCRIPTOR.services_by_name.values()
    return found


METHODS: dict[str, MethodDescriptor] = {
    path: method
    for service in _services()
    for method in service.methods
    if (path := f"/{service.full_name}/{method.name}") != _LEFT_OUT
}
"""All that a replica answers, by path."""
