"""The public contract as lines: one for each field, value of an enum, and RPC, with its types.

``python tests/helpers/contract.py`` prints them. ``protos/released.txt`` has the last release's;
write them there when one is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bertd.v1 import inference_pb2, models_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

FILES: tuple[FileDescriptor, ...] = (inference_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR)


def lines(file: FileDescriptor) -> Iterator[str]:
    """What a file promises."""
    for message in file.message_types_by_name.values():
        yield from _of_message(message)
    for enum in file.enum_types_by_name.values():
        yield from _of_enum(enum)
    for service in file.services_by_name.values():
        yield from _of_service(service)


def _of_message(message: Descriptor) -> Iterator[str]:
    yield f"message {message.full_name}"
    for field in message.fields:
        oneof = field.containing_oneof
        within = f" in {oneof.name}" if oneof is not None else ""
        yield f"{message.full_name} {field.number} {field.name}: {_type(field)}{within}"
    for inner in message.nested_types:
        yield from _of_message(inner)
    for enum in message.enum_types:
        yield from _of_enum(enum)


def _type(field: FieldDescriptor) -> str:
    types: Any = FieldDescriptorProto.Type
    kind = types.Name(field.type).removeprefix("TYPE_").lower()
    named = field.message_type or field.enum_type
    label = "repeated " if field.is_repeated else ""
    return label + (named.full_name if named is not None else kind)


def _of_enum(enum: EnumDescriptor) -> Iterator[str]:
    for value in enum.values:
        yield f"{enum.full_name} {value.number} {value.name}"


def _of_service(service: ServiceDescriptor) -> Iterator[str]:
    for method in service.methods:
        asked = "stream " * method.client_streaming + method.input_type.full_name
        given = "stream " * method.server_streaming + method.output_type.full_name
        yield f"rpc {method.full_name}({asked}) returns ({given})"


if __name__ == "__main__":
    for each in FILES:
        print(*lines(each), sep="\n")  # noqa: T201 - a script
