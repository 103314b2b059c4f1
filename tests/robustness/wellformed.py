"""A good request for each RPC of a server, to begin with.

::

    descriptor of a request ──fields by their names──> message that the server's model can read
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from bertd.oip import grpc_service_pb2 as oip_pb2
from bertd_server.rpc.services import SERVICES
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

WORDS = "The cat sat on the mat."
WATCH = "/grpc.health.v1.Health/Watch"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
_PAIRS = {
    "question-answering": ("question", "context"),
    "text-ranking": ("query", "document"),
}
_MODEL_FIELDS = {"model", "model_name", "name"}
# Optional in their contracts, and wrong for a model that has no such thing.
_LEFT_OUT = {
    *("prompt_name", "hypothesis_template", "version", "model_version", "dimensions", "targets")
}
_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Target:
    """The model that is asked.

    Attributes:
        name: as served.
        task: as in the manifest.
        mask: the mask token's text; empty where there is none.
        vocabulary: ids there are.
    """

    name: str
    task: str
    mask: str
    vocabulary: int

    @property
    def text(self) -> str:
        """A text that the model can read."""
        return f"{WORDS} {self.mask}" if self.task == "fill-mask" else WORDS


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC.

    Attributes:
        path: on the wire.
        request: class of what it takes.
        answer: class of what it gives.
        streams: whether it takes many requests.
        in_band: whether a request of its stream that is refused is answered, and the stream goes on
    """

    path: str
    request: type[Message]
    answer: type[Message]
    streams: bool
    in_band: bool


def methods() -> list[Method]:
    """Every RPC of a server, health and reflection too."""
    services: tuple[Any, ...] = (
        *SERVICES,
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    )
    return [_method(service.full_name, one) for service in services for one in service.methods]


def _method(service: str, method: MethodDescriptor) -> Method:
    own = service in {"bertd.v1.InferenceService", "inference.GRPCInferenceService"}
    return Method(
        f"/{service}/{method.name}",
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
        method.client_streaming,
        method.client_streaming and (own or "reflection" in service),
    )


def message_for(method: Method, target: Target) -> Any:
    """A request that the method can read."""
    if method.request is oip_pb2.ModelInferRequest:
        return infer(target)
    if method.request is reflection_pb2.ServerReflectionRequest:
        return reflection_pb2.ServerReflectionRequest(list_services="*")
    message: Any = method.request()
    if not method.path.startswith("/grpc."):
        _fill(message, target, 0)
    return message


def infer(target: Target) -> Any:
    """A request of the Open Inference Protocol, its texts in raw contents."""
    request = oip_pb2.ModelInferRequest(model_name=target.name)
    for name in _PAIRS.get(target.task, ("text",)):
        request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
        text = target.text.encode()
        request.raw_input_contents.append(struct.pack("<I", len(text)) + text)
    if target.task == "zero-shot-classification":
        request.parameters["labels"].string_param = json.dumps(["animals", "weather"])
    return request


def _fill(message: Any, target: Target, depth: int) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    for field in descriptor.fields:
        if field.name in _LEFT_OUT or _is_map(field):
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            text = target.name if field.name in _MODEL_FIELDS else target.text
            if field.is_repeated:
                getattr(message, field.name).extend([text, f"{text} Twice."])
            else:
                setattr(message, field.name, text)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth < _DEPTH:
            place = getattr(message, field.name)
            _fill(place.add() if field.is_repeated else place, target, depth + 1)
        elif field.name == "ids":
            getattr(message, field.name).extend([1, 2, 3])


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.GetOptions().map_entry
