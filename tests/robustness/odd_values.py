"""Fields of messages with values that nobody would send: out of range, too long, too many."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_INTEGERS = (-1, 0, 1, 2, 255, 65_536, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, -(2**31))
_FLOATS = (float("nan"), float("inf"), float("-inf"), -0.0, 1e308)
_STRINGS = (
    *("", " ", "\0", "{", "{}{}", "{0.__class__}", "{label}", "\ufffe", "\u202e", "a" * 70_000),
    *("é" * 150_000, "🙂" * 2_000, "e" + "\u0301" * 5_000, "[MASK]" * 300, "../../etc/passwd"),
)
COUNTS = (0, 257, 1_000, 20_000)
_LARGEST = 2**26  # bytes


def places(message: Any) -> Iterator[tuple[Any, FieldDescriptor]]:
    """Every field of a message and of those that it holds; no maps."""
    for field in message.DESCRIPTOR.fields:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            continue
        yield message, field
        if kind is not None:
            value = getattr(message, field.name)
            held = value if field.is_repeated else [value] if message.HasField(field.name) else []
            for one in held:
                yield from places(one)


def spoil(rng: random.Random, message: Any, field: FieldDescriptor) -> None:
    """Give a field an odd value, or many."""
    if field.is_repeated:
        if rng.random() < 0.3 or field.message_type is not None:
            repeat(message, field, rng.choice(COUNTS))
            return
        getattr(message, field.name).append(_odd(rng, field))
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _odd(rng, field))


def _odd(rng: random.Random, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return rng.choice(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(_STRINGS)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    least, most = _RANGES[kind]
    return rng.choice([value for value in _INTEGERS if least <= value <= most])


_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def repeat(message: Any, field: FieldDescriptor, count: int) -> None:
    """Give a repeated field so many values, equal to its first one.

    As many as make about 64 MB at most: gRPC holds a whole message before it refuses its size, so
    a larger one would measure gRPC.
    """
    values = getattr(message, field.name)
    count = min(count, _LARGEST // max(1, message.ByteSize()))
    first = [values[0]] if len(values) else []
    if field.message_type is None:
        values[:] = (first or [_odd(random.Random(0), field)]) * count
        return
    copies = [type(one)() for one in first]
    for copy, one in zip(copies, first, strict=True):
        copy.CopyFrom(one)
    del values[:]
    values.extend(copies * count)
