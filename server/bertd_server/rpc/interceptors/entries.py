"""A message's fields on the wire, before it is decoded: how many entries it has, and its pieces.

A message of 16 MiB holds millions of empty strings: decoded, they take hundreds of megabytes and
the event loop's time, to be refused then. Here the first one beyond the limit ends the count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from bertd_server.errors import InvalidInput

LEAST_BYTES = 65_536
"""Smaller messages are decoded as soon as they are counted."""

MOST_FIELDS = 65_536  # of a message and those in it; numbers that stand together are one
MOST_NUMBERS = 1_000_000  # together in all messages of a request

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_FIXED_TYPES = {
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
}
# What may have more entries than a call has texts: as many times as many, or so many in any case.
_TEXTS_OF = {"inference.InferTensorContents.bytes_contents": 4}  # texts, pairs, labels
_AT_LEAST = {"bertd.v1.FillMaskRequest.targets": 1_000}
# Tokens, types and mask of 8,192 tokens for each text.
_NUMBERS_OF_TEXT = {
    "inference.InferTensorContents.int64_contents": 3 * 8_192,
    "inference.InferTensorContents.int_contents": 3 * 8_192,
}


def check_entries(data: bytes, descriptor: Descriptor, max_texts: int | None = None) -> None:
    """Refuse a message whose repeated fields have too many entries. Bytes that are none may pass.

    Args:
        data: of the message.
        descriptor: of its type.
        max_texts: entries that a call may have; None where that is not known, for half as many as
            a message may have fields.

    Raises:
        InvalidInput: there are too many.
    """
    if len(data) > LEAST_BYTES:
        try:
            _Count(data, max_texts).message(0, len(data), descriptor, "")
        except IndexError:  # it ends in the middle of a field, or so: no message
            return


@dataclass(slots=True)
class _Count:
    """What was met so far."""

    data: bytes
    max_texts: int | None
    fields: int = 0
    entries: Counter[str] = field(default_factory=Counter)

    def message(self, place: int, end: int, descriptor: Descriptor, path: str) -> None:
        """Count what a message has, which stands between two places."""
        known = descriptor.fields_by_number
        most = max(MOST_FIELDS, 8 * (self.max_texts or 0))
        while place < end:
            tag, place, after = _next_field(self.data, place, end)
            self.fields += 1
            if self.fields > most:
                raise _too_many(path or "the request", most, "fields", "and numbers packed")
            of = known.get(tag >> 3)
            if of is not None:
                self._field(of, place, after, tag & 7, path)
            place = after

    def _field(self, of: FieldDescriptor, place: int, end: int, kind: int, path: str) -> None:
        name = f"{path}.{of.name}" if path else of.name
        numbers = of.cpp_type not in (
            FieldDescriptor.CPPTYPE_STRING,
            FieldDescriptor.CPPTYPE_MESSAGE,
        )
        if of.is_repeated:
            count = self._numbers(of, place, end) if numbers and kind == _DELIMITED else 1
            self.entries[of.full_name] += count
            limit = self._limit(of.full_name, numbers=numbers)
            if self.entries[of.full_name] > limit:
                raise _too_many(name, limit, "numbers" if numbers else "entries")
        if of.message_type is not None and kind == _DELIMITED:
            self.message(place, end, of.message_type, name)

    def _numbers(self, of: FieldDescriptor, place: int, end: int) -> int:
        """How many numbers stand together."""
        size = _FIXED_TYPES.get(of.type)
        if size is not None:
            return (end - place) // size
        packed = np.frombuffer(self.data, np.uint8)[place:end]
        return int(np.count_nonzero(packed < 128))  # a varint's last byte

    def _limit(self, name: str, *, numbers: bool) -> int:
        if numbers:
            return max(MOST_NUMBERS, _NUMBERS_OF_TEXT.get(name, 0) * (self.max_texts or 256))
        if self.max_texts is None:
            return MOST_FIELDS // 2
        return max(self.max_texts * _TEXTS_OF.get(name, 1), _AT_LEAST.get(name, 0))


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """A message's bytes in pieces of whole fields, to be merged into it one after the other.

    Args:
        data: of the message; if they are none, the last piece is what is left of them.
        size: bytes of a piece, at most, unless a single field has more.
    """
    begin = place = 0
    try:
        while place < len(data):
            _, _, after = _next_field(data, place, len(data))
            if after - begin > size and place > begin:
                yield data[begin:place]
                begin = place
            place = after
    except IndexError:
        pass
    yield data[begin:]


def _next_field(data: bytes, place: int, end: int) -> tuple[int, int, int]:
    """A field's tag, where its value begins, and where it ends.

    Raises:
        IndexError: there is none.
    """
    tag, place = _varint(data, place)
    kind = tag & 7
    if kind == _VARINT:
        return tag, place, _varint(data, place)[1]
    if kind == _DELIMITED:
        length, place = _varint(data, place)
        return tag, place, place + length
    return tag, place, place + _SIZES.get(kind, end)  # an unknown kind: no message


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number, and the place after it."""
    byte = data[place]
    if byte < 128:
        return byte, place + 1
    value = byte & 127
    for shift in range(7, 64, 7):
        place += 1
        byte = data[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place + 1
    raise IndexError("a number of more than 64 bits")


def _too_many(name: str, limit: int, what: str, how: str = "") -> InvalidInput:
    return InvalidInput(
        f"{name} has more than {limit} {what}, a call takes at most {limit}: "
        f"split it into several calls{', ' + how if how else ''}",
        field="" if how else name,
        reason="too_many",
        limit=limit,
    )
