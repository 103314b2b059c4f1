"""Around a handler: what each interceptor does before, during and after the behaviour of an RPC.

::

    handler ──wrapped──> handler of the same kind
                           request ──given──> behaviour, within(context) ──> response, or responses
                                                  └── RequestError: the call ends with its status
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import grpc

from bertd_server.errors import RequestError
from bertd_server.rpc.status import abort
from bertd_server.rpc.streams import closed_after_use

_MAKERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def wrapped(
    handler: Any,
    *,
    within: Callable[[Any], AbstractContextManager[Any]] | None = None,
    given: Callable[[Any], Any] | None = None,
    decode: Callable[[bytes], Any] | None = None,
) -> Any:
    """A handler of the same kind, with something around its behaviour.

    Args:
        handler: of an RPC; its behaviour is asynchronous.
        within: gives, for the call's context, what the behaviour runs within.
        given: makes of the stream of requests what the behaviour gets; of a request alone it is
            awaited.
        decode: in the place of the handler's own deserialiser.
    """
    behaviour, is_stream = behaviour_of(handler), handler.request_streaming

    async def answer(request: Any, context: Any) -> Any:
        try:
            with within(context) if within else nullcontext():
                if given:
                    request = given(request) if is_stream else await given(request)
                return await behaviour(request, context)
        except RequestError as error:
            await abort(context, error)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            with within(context) if within else nullcontext():
                if given:
                    request = given(request) if is_stream else await given(request)
                responses = behaviour(request, context)
                async with closed_after_use(responses) as answers:
                    async for response in answers:
                        yield response
        except RequestError as error:
            await abort(context, error)

    kind = stream if inspect.isasyncgenfunction(behaviour) else answer
    return handler_like(handler, kind, request_deserializer=decode or handler.request_deserializer)


def handler_like(handler: Any, behaviour: Callable[[Any, Any], Any], **changes: Any) -> Any:
    """A handler of the same kind with another behaviour; further changes by name."""
    make = _MAKERS[handler.request_streaming, handler.response_streaming]
    kept = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    return make(behaviour, **{**kept, **changes})


def behaviour_of(handler: Any) -> Callable[[Any, Any], Any]:
    """What answers the calls of a handler; one that writes to the context is a coroutine too."""
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    behaviour: Callable[[Any, Any], Any] = next(filter(None, kinds))
    return behaviour


class WrappingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of some methods, each once: gRPC gives the same one for each call."""

    def __init__(self, methods: Container[str]) -> None:
        """Take the paths of the methods. Nothing is kept of others, which strangers make up."""
        self._methods = methods
        self._known: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Give the wrapped handler; made anew where the method has another one than before."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or method not in self._methods:
            return handler
        known = self._known.get(method)
        if known is None or known[0] is not handler:
            known = self._known[method] = handler, self.wrap(method, handler)
        return known[1]

    @abstractmethod
    def wrap(self, method: str, handler: Any) -> Any:
        """The handler of a method, wrapped."""
