"""Messages as JSON, and what schemas say of them, by their descriptors.

A response may hold a hundred thousand messages, which json_format writes one by one, in 40 µs each:
here a step has some of them. Fields keep the names of the contract, and are there where they are 0.

https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from bertd_server.http.replies import written
from bertd_server.scheduling.executor import Steps

_MESSAGES = 32  # in a step: some tenths of a ms
_OF_GOOGLE = "google."  # some of its messages have forms of their own
_WIDE = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
_DEEPEST = 4  # messages within messages, of which a schema speaks
_SCHEMAS = {
    FieldDescriptor.CPPTYPE_BOOL: "boolean",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_ENUM: "string",
    FieldDescriptor.CPPTYPE_STRING: "string",
}


def written_message(message: Message, *, numbers: bool = False) -> Steps[bytes]:
    """The JSON of a message.

    Args:
        message: to write.
        numbers: whether integers of 64 bits are numbers; else strings, as the mapping has them.
    """
    pieces = []
    fields: Any = message.DESCRIPTOR.fields  # their types are two to protobuf's stubs
    for field in fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        kind, value = field.message_type, getattr(message, field.name)
        if kind is not None and kind.GetOptions().map_entry:
            given = written({str(key): _plain(kind, value[key], numbers) for key in value})
        elif kind is None:
            given = written(_scalars(field, value, numbers=numbers))
        elif not field.is_repeated:
            given = yield from _message(value, numbers=numbers)
        else:
            rows = []
            for number, one in enumerate(value):
                rows.append((yield from _message(one, numbers=numbers)))
                if not (number + 1) % _MESSAGES:
                    yield
            given = b"[%s]" % b",".join(rows)
        pieces.append(b'"%s":%s' % (field.name.encode(), given))
    return b"{%s}" % b",".join(pieces)


def _message(message: Message, *, numbers: bool) -> Steps[bytes]:
    if message.DESCRIPTOR.full_name.startswith(_OF_GOOGLE):
        return written(MessageToDict(message))
    return (yield from written_message(message, numbers=numbers))


def _plain(entry: Descriptor, value: Any, numbers: bool) -> Any:
    """A value of a map."""
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True)
    return _scalar(entry.fields_by_name["value"], value, numbers=numbers)


def _scalars(field: FieldDescriptor, value: Any, *, numbers: bool) -> Any:
    if not field.is_repeated:
        return _scalar(field, value, numbers=numbers)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return np.array(value, np.float32)
    return [_scalar(field, one, numbers=numbers) for one in value]


def _scalar(field: FieldDescriptor, value: Any, *, numbers: bool) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field.cpp_type in _WIDE and not numbers:
        return str(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return np.float32(value)  # written as short as its bits allow
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def schema_of(kind: Descriptor, depth: int = 0, *, numbers: bool) -> dict[str, Any]:
    """JSON schema of a message.

    Args:
        kind: of message.
        depth: messages that it is within.
        numbers: whether integers of 64 bits are numbers; else strings.
    """
    if depth == _DEEPEST or kind.full_name.startswith(_OF_GOOGLE):
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {field.name: _schema(field, depth, numbers) for field in kind.fields},
    }


def _schema(field: FieldDescriptor, depth: int, numbers: bool) -> dict[str, Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value = _schema(kind.fields_by_name["value"], depth + 1, numbers)
        return {"type": "object", "additionalProperties": value}
    one: dict[str, Any]
    if kind is not None:
        one = schema_of(kind, depth + 1, numbers=numbers)
    elif field.enum_type is not None:
        one = {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    elif field.cpp_type in _WIDE and not numbers:
        one = {"type": "string"}
    else:
        one = {"type": _SCHEMAS.get(field.cpp_type, "integer")}
    return {"type": "array", "items": one} if field.is_repeated else one
