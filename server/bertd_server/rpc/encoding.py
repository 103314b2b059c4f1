"""Responses as bytes, put together piece by piece: a large one holds nothing up.

::

    head ──SerializeToString──> bytes ─┐
    result ──steps──> its pieces ──────┼──join──> the bytes of the response
    result ──steps──> its pieces ──────┘

To serialise a message of a hundred thousand parts takes the interpreter for a tenth of a second,
and holds it whole in memory beside its bytes. The bytes are those of the message: an entry of a
repeated field is a tag, a length and the entry, and a message's fields may stand one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from bertd_server.rpc.interceptors.handlers import behaviour_of, handler_like
from bertd_server.scheduling.executor import Steps

T = TypeVar("T")
Pieces = list[bytes]
"""The bytes of a message, one piece after the other."""

PARTS = 128
"""Messages for so many tokens, entities or candidates take some tenths of a ms to make."""

_LENGTH_DELIMITED = 2


def encoded(head: Message, name: str, results: Iterable[Steps[Pieces]]) -> Steps[bytes]:
    """A response: the fields of `head`, and in its repeated field `name` the results."""
    pieces = [head.SerializeToString()]
    for result in results:
        pieces += within(type(head), name, (yield from result))
        yield
    return b"".join(pieces)


def within(kind: type[Message], name: str, pieces: Pieces) -> Pieces:
    """A field of a message: a string of bytes or a message, or one entry of several."""
    which: Any = kind  # classes of messages can be hashed, though their stubs deny it
    return [_tag(which, name) + _varint(sum(map(len, pieces))), *pieces]


@lru_cache(maxsize=256)  # more than there are
def _tag(kind: type[Message], name: str) -> bytes:
    number = cast("Descriptor", kind.DESCRIPTOR).fields_by_name[name].number
    return _varint(number << 3 | _LENGTH_DELIMITED)


def in_parts(
    kind: type[Message],
    name: str,
    values: Sequence[T],
    make: Callable[[T], Any],
    parts: int = PARTS,
) -> Steps[Pieces]:
    """A message whose repeated field `name` has one message for each value; so many in a step."""
    pieces = []
    for start in range(0, len(values), parts):
        some = [make(value) for value in values[start : start + parts]]
        pieces.append(kind(**{name: some}).SerializeToString())
        yield
    return pieces


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


class EncodingServer:
    """A gRPC server, as generated code adds a servicer to it, to which responses may be bytes."""

    def __init__(self, server: grpc.aio.Server) -> None:
        """Add servicers to that server."""
        self._server = server

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Nothing: the same handlers come once more, by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Add the handlers of a service."""
        taking = {
            name: handler_like(
                handler,
                behaviour_of(handler),
                response_serializer=_serializer(handler.response_serializer),
            )
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, taking)
        self._server.add_generic_rpc_handlers((generic,))


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda response: response if isinstance(response, bytes) else serialize(response)
