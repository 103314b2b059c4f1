"""The Open Inference Protocol (proto package ``inference``) in a descriptor pool of its own.

Triton's client, KServe's and MLServer register the same package in protobuf's default pool, and a
second copy there ends the process. Nothing here touches that pool, so that bertd shares a process
with any of them, imported before it or after.

``protos/generate.py`` writes the modules beside this one: each hands its descriptor to
:func:`classes` instead of the default pool.
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

POOL = DescriptorPool()


def classes(serialized: bytes) -> dict[str, Any]:
    """What a generated module holds: its descriptor, messages, enums and their values.

    Args:
        serialized: a FileDescriptorProto; those that it imports were given before.
    """
    added: Any = POOL.AddSerializedFile(serialized)
    file = cast("FileDescriptor", added)
    names: dict[str, Any] = {"DESCRIPTOR": file}
    for name, message in file.message_types_by_name.items():
        names[name] = GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        names[name] = EnumTypeWrapper(enum)
        names |= {value.name: value.number for value in enum.values}
    return names
