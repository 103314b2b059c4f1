"""Stands where Ray's gRPC proxy stands: what it does to handlers, and what it carries of a call.

Ray 2.60 is 300 MB and takes a minute to start; tests/ray/test_serve.py asks the real one the same.
"""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from typing import Any

import grpc
from bertd_ray.proxy import add_services


class ActorDied(Exception):
    """Raised where a replica would have died."""

    def __str__(self) -> str:
        return "The actor died unexpectedly before finishing this task.\n\tpid: 1, ip: 192.0.2.1"


class Carried:
    """What of gRPC's context Ray sends to a replica and back: pickled, without time or head."""

    def __init__(self, context: Any) -> None:
        self._metadata = list(context.invocation_metadata())
        self._peer = context.peer()
        self._code: Any = None
        self._details = ""
        self._trailers = [("request_id", "1")]

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        return self._metadata

    def peer(self) -> str:
        return str(self._peer)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, Any]]) -> None:
        self._trailers = self._trailers[:1] + trailing_metadata

    def put_on(self, context: Any) -> None:
        if self._code:
            context.set_code(self._code)
        if self._details:
            context.set_details(self._details)
        context.set_trailing_metadata(self._trailers)


class LikeRay:
    """A gRPC server whose calls of our methods go to a replica, by the methods' bare names."""

    def __init__(self, replica: Any) -> None:
        self._replica = replica
        self.server = grpc.aio.server()
        add_services(object(), self)  # type: ignore[arg-type]  # all that it asks of a server

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        (handler,) = handlers
        handler._method_handlers = {
            path: one._replace(
                response_serializer=None,
                unary_unary=self._one(path),
                unary_stream=self._several(path),
                stream_unary=self._one(path),
                stream_stream=self._several(path),
            )
            for path, one in handler._method_handlers.items()
        }
        self.server.add_generic_rpc_handlers(handlers)

    def _one(self, path: str) -> Any:
        async def answer(request: Any, context: Any) -> bytes:
            carried = Carried(context)
            method = getattr(self._replica, path.rsplit("/", 1)[1])
            try:
                result = await method(request, grpc_context=carried)
            except ActorDied as error:
                context.set_code(grpc.StatusCode.INTERNAL)
                context.set_details(str(error))
                return b""
            return self._back((carried, result.SerializeToString()), context)

        return answer

    def _several(self, path: str) -> Any:
        async def answers(request: Any, context: Any) -> AsyncIterator[bytes]:
            carried = Carried(context)
            method = getattr(self._replica, path.rsplit("/", 1)[1])
            async for result in method(request, grpc_context=carried):
                yield self._back((carried, result.SerializeToString()), context)

        return answers

    def _back(self, sent: tuple[Carried, bytes], context: Any) -> bytes:
        carried, message = pickle.loads(pickle.dumps(sent))  # noqa: S301 - our own
        carried.put_on(context)
        return bytes(message)
