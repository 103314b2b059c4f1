"""What Ray's gRPC proxy runs: our methods, and what Ray's own part of it leaves out.

::

    client ──> Passing.service ──RPC, TIMEOUT──> Ray's behaviour ──bytes──> replica
    client <──head, messages, status──────────────────┘

Ray calls :func:`add_services` in each proxy and puts its own behaviour into every handler that it
is given. Around that one stands what tells the replica the path and the time that is left, and what
takes apart the head of an answer, its trailers and the end of a stream that failed. The proxy
decodes nothing: messages go through it as bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc

from bertd_ray.wire import END, HEAD, METHODS, RPC, TIMEOUT

_MAKERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
_OURS = frozenset({RPC, TIMEOUT})
# What Ray says, as INTERNAL and with process and address, of a replica that died, or its node.
_DIED = "The actor "
_AGAIN = "the replica died while it had the call: send it again"
_INTERNAL = (grpc.StatusCode.INTERNAL, grpc.StatusCode.INTERNAL.value[0])


def add_services(_servicer: object, server: grpc.aio.Server) -> None:
    """Have a proxy answer bertd.v1, tei.v1, the Open Inference Protocol, health and reflection.

    Name it in `grpc_servicer_functions` of Serve's gRPC options, alone for these protocols.
    """
    server.add_generic_rpc_handlers((Passing(),))


class Passing(grpc.GenericRpcHandler):
    """The handlers of all our methods."""

    def __init__(self) -> None:
        self._method_handlers = {
            path: _MAKERS[method.client_streaming, method.server_streaming](_nothing)
            for path, method in METHODS.items()
        }
        """By path, as gRPC's own class has them: Ray replaces those that it finds here."""
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a path, made of Ray's once; None if it is not ours."""
        path = handler_call_details.method
        if path not in self._known and path in self._method_handlers:
            self._known[path] = _around(self._method_handlers[path], path)
        return self._known.get(path)


async def _nothing(_request: object, _context: object) -> None:
    """Stands where Ray puts its own behaviour."""


def _around(handler: Any, path: str) -> Any:
    """Ray's handler, with a context that says what it leaves out."""
    is_stream: tuple[bool, bool] = (handler.request_streaming, handler.response_streaming)
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
            told = _Context(context, path)
            async with aclosing(behaviour(request, told)) as messages:
                async for message in messages:
                    await told.send_head()
                    if message != END:
                        yield message

        return _MAKERS[is_stream](stream)
    ask = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def answer(request: Any, context: Any) -> bytes:
        told = _Context(context, path)
        message: bytes = await ask(request, told)
        await told.send_head()
        return message

    return _MAKERS[is_stream](answer)


class _Context:
    """gRPC's context as Ray is to see it."""

    def __init__(self, context: Any, path: str) -> None:
        self._context = context
        self._path = path
        self._head: tuple[tuple[str, Any], ...] = ()

    def __getattr__(self, name: str) -> Any:
        """Everything else is gRPC's."""
        return getattr(self._context, name)

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        """The caller's, with the path and the time that is left; no caller says those himself."""
        given = self._context.invocation_metadata() or ()
        kept = [(name, value) for name, value in given if name not in _OURS]
        kept.append((RPC, self._path))
        left = self._context.time_remaining()
        if left is not None:
            kept.append((TIMEOUT, str(max(0, int(1000 * left)))))
        return kept

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, Any]]) -> None:
        """Set the trailers, and keep what belongs to the head."""
        given = tuple(metadata)
        self._head = tuple(
            (name.removeprefix(HEAD), value) for name, value in given if name.startswith(HEAD)
        )
        self._context.set_trailing_metadata(
            tuple(one for one in given if not one[0].startswith(HEAD))
        )

    def set_details(self, details: str) -> None:
        """Set the status's message; a call whose replica died may be sent again by any client."""
        if details.startswith(_DIED) and self._context.code() in _INTERNAL:
            self._context.set_code(grpc.StatusCode.UNAVAILABLE)
            details = _AGAIN
        self._context.set_details(details)

    async def send_head(self) -> None:
        """Send the head of the answer, once, where there is something to say in it."""
        if self._head:
            head, self._head = self._head, ()
            await self._context.send_initial_metadata(head)
