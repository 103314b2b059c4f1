"""Messages that cannot be decoded get INVALID_ARGUMENT that names the field, for every RPC.

So do those with more entries than a call may have, before they are decoded. Large ones are decoded
a piece at a time, and others have their turn on the event loop in between.

In a stream those before such a message are answered first.

gRPC's own answer to undecodable bytes is INTERNAL with no hint of what was wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from bertd_server.errors import InvalidInput
from bertd_server.rpc.interceptors.entries import check_entries, pieces
from bertd_server.rpc.interceptors.handlers import WrappingInterceptor, wrapped
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.system.turns import give_way

LENGTH_DELIMITED = 2
_PIECE_BYTES = 262_144  # are decoded at once, in some tenths of a ms
_FEW_BYTES = 65_536  # as soon as they come; others in turns, as streams bring hundreds together
_COPIES = 3  # as bytes, as a message, and what is made of it until its call has memory of its own


@dataclass(frozen=True, slots=True)
class _Undecodable:
    error: InvalidInput


@dataclass(frozen=True, slots=True)
class _Large:
    """A message that is decoded in pieces."""

    kind: type[Message]
    data: bytes

    async def decoded(self, memory: MemoryBudget) -> Message:
        """The message, once there is memory for it.

        Raises:
            RequestError: it cannot be decoded, or there is no room.
        """
        size = len(self.data)
        needs = memory.within(_COPIES * size)
        with await memory.reserve(needs, request=size, field="the message"):
            message = self.kind()
            try:
                for piece in pieces(self.data, _PIECE_BYTES):
                    await give_way()
                    message.MergeFromString(piece)
            except DecodeError:
                raise explain(self.data, cast("Descriptor", self.kind.DESCRIPTOR)) from None
            return message


class DecodingInterceptor(WrappingInterceptor):
    """Wraps the deserialiser of every RPC."""

    def __init__(
        self,
        requests: dict[str, type[Message]],
        max_texts: int | None = None,
        memory: MemoryBudget | None = None,
    ) -> None:
        """Take the request class of each method, by its full path.

        Args:
            requests: those classes.
            max_texts: entries that a call may have; None where that is not known.
            memory: of requests in flight; None for no limit.
        """
        super().__init__(requests)
        self._requests = requests
        self._max_texts = max_texts
        self._memory = memory or MemoryBudget()

    def wrap(self, method: str, handler: Any) -> Any:
        """Replace the deserialiser, and answer what it could not read."""
        readable = self._readable_stream if handler.request_streaming else self._readable
        decode = _decoder(self._requests[method], self._max_texts)
        return wrapped(handler, given=readable, decode=decode)

    async def _readable(self, request: Any) -> Any:
        if isinstance(request, _Undecodable):
            raise request.error
        return await request.decoded(self._memory) if isinstance(request, _Large) else request

    async def _readable_stream(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield await self._readable(request)


def _decoder(
    kind: type[Message], max_texts: int | None
) -> Callable[[bytes], Message | _Undecodable | _Large]:
    descriptor = cast("Descriptor", kind.DESCRIPTOR)

    def decode(data: bytes) -> Message | _Undecodable | _Large:
        try:
            check_entries(data, descriptor, max_texts)
            return kind.FromString(data) if len(data) <= _FEW_BYTES else _Large(kind, data)
        except InvalidInput as error:
            return _Undecodable(error)
        except DecodeError:
            return _Undecodable(explain(data, descriptor))

    return decode


def explain(data: bytes, descriptor: Descriptor) -> InvalidInput:
    """Say why `data` is not a message of that type: which string is not UTF-8, if one is not."""
    field = _broken_text(data, descriptor)
    if field is None:
        return InvalidInput(
            f"the request is not a {descriptor.full_name}: "
            "compile the client from the server's own .proto files",
            reason="undecodable",
        )
    return InvalidInput(
        f"{field} is not valid UTF-8: encode text as UTF-8", field=field, reason="not_unicode"
    )


def _broken_text(data: bytes, descriptor: Descriptor) -> str | None:
    """Path of the first string field that is not UTF-8; None if the bytes are no message."""
    try:
        # Iterable at run time; its stubs do not say so.
        fields = cast("Iterable[Any]", UnknownFieldSet(Empty.FromString(data)))
    except DecodeError:
        return None
    seen: dict[int, int] = {}
    for unknown in fields:
        number = unknown.field_number
        index = seen[number] = seen.get(number, -1) + 1
        field = descriptor.fields_by_number.get(number)
        if field is None or unknown.wire_type != LENGTH_DELIMITED:
            continue
        name = f"{field.name}[{index}]" if field.is_repeated else field.name
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            kind = field.message_type
            inner = kind and _broken_text(unknown.data, kind)
            if inner:
                return f"{name}.{inner}"
        elif field.type == FieldDescriptor.TYPE_STRING:
            try:
                unknown.data.decode()
            except UnicodeDecodeError:
                return name
    return None


def request_classes(*services: ServiceDescriptor) -> dict[str, type[Message]]:
    """Request classes of services' methods, by method path."""
    return {
        f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
        for service in services
        for method in service.methods
    }
