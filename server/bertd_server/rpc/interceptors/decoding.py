"""Messages that cannot be decoded get INVALID_ARGUMENT that names the field, for every RPC.

In a stream those before such a message are answered first.

gRPC's own answer to undecodable bytes is INTERNAL with no hint of what was wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use

LENGTH_DELIMITED = 2


@dataclass(frozen=True, slots=True)
class _Undecodable:
    error: InvalidInput


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the deserialiser of every RPC."""

    def __init__(self, requests: dict[str, type[Message]]) -> None:
        """Take the request class of each method, by its full path."""
        self._requests = requests
        self._guards: dict[str, tuple[Any, Any]] = {}  # handlers are the same for each call

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Replace the deserialiser, and answer what it could not read."""
        handler = await continuation(handler_call_details)
        kind = self._requests.get(handler_call_details.method)
        if handler is None or kind is None:
            return handler
        known = self._guards.get(handler_call_details.method)
        if known is None or known[0] is not handler:
            known = self._guards[handler_call_details.method] = handler, _guard(handler, kind)
        return known[1]


def _guard(handler: Any, kind: type[Message]) -> Any:
    if handler.request_streaming and not handler.response_streaming:
        return grpc.stream_unary_rpc_method_handler(
            _guarded_end(handler.stream_unary),
            request_deserializer=_decoder(kind),
            response_serializer=handler.response_serializer,
        )
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(
            _guarded_stream(handler.stream_stream),
            request_deserializer=_decoder(kind),
            response_serializer=handler.response_serializer,
        )
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _guarded(handler.unary_stream),
            request_deserializer=_decoder(kind),
            response_serializer=handler.response_serializer,
        )
    return grpc.unary_unary_rpc_method_handler(
        _guarded(handler.unary_unary),
        request_deserializer=_decoder(kind),
        response_serializer=handler.response_serializer,
    )


def _guarded(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Any]:
    async def answer(request: Any, context: Any) -> Any:
        if isinstance(request, _Undecodable):
            await abort(context, request.error)
        return await behaviour(request, context)

    return answer


def _guarded_stream(
    behaviour: Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]],
) -> Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]]:
    async def answer(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            async with closed_after_use(behaviour(_readable(requests), context)) as responses:
                async for response in responses:
                    yield response
        except RequestError as error:
            await abort(context, error)

    return answer


def _guarded_end(
    behaviour: Callable[[AsyncIterator[Any], Any], Awaitable[Any]],
) -> Callable[[AsyncIterator[Any], Any], Awaitable[Any]]:
    async def answer(requests: AsyncIterator[Any], context: Any) -> Any:
        try:
            return await behaviour(_readable(requests), context)
        except RequestError as error:
            await abort(context, error)

    return answer


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Undecodable):
            raise request.error
        yield request


def _decoder(kind: type[Message]) -> Callable[[bytes], Message | _Undecodable]:
    def decode(data: bytes) -> Message | _Undecodable:
        try:
            return kind.FromString(data)
        except DecodeError:
            return _Undecodable(explain(data, cast("Descriptor", kind.DESCRIPTOR)))

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
