"""The calls of a replica: services are told what gRPC would tell them, Ray what it can carry.

::

    path, bytes ──LocalServer.find──> interceptors, handler ──> messages ──> AnswerBytes
                                           └── abort ──> Ended ──> RayCall.end ──> Ray's context
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple, NoReturn, Protocol

import grpc
from bertd_server.rpc.interceptors.handlers import behaviour_of
from bertd_server.system.logs import get_logger

from bertd_ray.wire import HEAD, METHODS, RPC, SERVICERS, TIMEOUT

log = get_logger("bertd")

CallMetadata = Sequence[tuple[str, Any]]


class RayContext(Protocol):
    """What Ray gives a replica of a call, and carries back to the proxy."""

    def invocation_metadata(self) -> CallMetadata:
        """The caller's, with what the proxy has added."""

    def peer(self) -> str:
        """Who calls."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status of the call."""

    def set_details(self, details: str) -> None:
        """Its message."""

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, Any]]) -> None:
        """Its trailers."""


class AnswerBytes:
    """Bytes, as Ray asks a message for them."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes."""
        return self._data


class Ended(Exception):
    """A call has ended with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: CallMetadata = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers


class RayCall:
    """A call as services see it: as much of gRPC's context as they look at."""

    def __init__(self, context: RayContext) -> None:
        """Begin a call, whose time runs from now.

        Raises:
            Ended: the proxy is not ours, so that nobody knows which method is meant.
        """
        self._context = context
        self._metadata = tuple(context.invocation_metadata())
        given = dict(self._metadata)
        self.path = str(given.get(RPC, ""))
        if self.path not in METHODS:
            raise Ended(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Serve's gRPC options do not name bertd's services, or name others for the same "
                f"methods: give grpc_servicer_functions {SERVICERS} alone",
            )
        left = float(given.get(TIMEOUT, math.inf)) / 1000
        self._deadline = time.monotonic() + left
        self._code: grpc.StatusCode | None = None
        self._trailers: CallMetadata = ()
        self._head: CallMetadata = ()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if math.isinf(self._deadline) else self._deadline - time.monotonic()

    def invocation_metadata(self) -> CallMetadata:
        """The caller's metadata."""
        return self._metadata

    def peer(self) -> str:
        """Who calls."""
        return self._context.peer()

    def code(self) -> grpc.StatusCode | None:
        """The status with which it has failed, if it has."""
        return self._code

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, Any]]) -> None:
        """Set the trailers."""
        self._trailers = tuple(metadata)
        self._tell()

    def trailing_metadata(self) -> CallMetadata:
        """The trailers, so far."""
        return self._trailers

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, Any]]) -> None:
        """Have the proxy send the head of the answer."""
        self._head = tuple((HEAD + name, value) for name, value in metadata)
        self._tell()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: CallMetadata = ()
    ) -> NoReturn:
        """End the call.

        Raises:
            Ended: always.
        """
        raise Ended(code, details, trailing_metadata)

    def end(self, ended: Ended) -> None:
        """Tell Ray how the call has ended."""
        self._code, self._trailers = ended.code, tuple(ended.trailers)
        tell(self._context, ended)
        self._tell()

    def _tell(self) -> None:
        self._context.set_trailing_metadata([*self._head, *self._trailers])


def tell(context: RayContext, ended: Ended) -> None:
    """Have Ray end a call with a status."""
    context.set_code(ended.code)
    context.set_details(ended.details)


class _Details(NamedTuple):
    """What interceptors are told of a call."""

    method: str
    invocation_metadata: CallMetadata


class LocalServer(grpc.aio.Server):
    """Services without a socket: added as to any server, then called here."""

    def __init__(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor], max_message_bytes: int
    ) -> None:
        """Have no services yet.

        Args:
            interceptors: outermost first.
            max_message_bytes: of one message.
        """
        self._most = max_message_bytes
        self._services: list[Any] = []
        self._find: Callable[[Any], Awaitable[Any]] = self._found
        for interceptor in reversed(interceptors):
            self._find = _through(interceptor, self._find)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Add handlers."""
        self._services += generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Do nothing: generated code adds the same handlers as generic ones."""

    async def call(self, request: Any, call: RayCall) -> bytes:
        """The answer to a message, or to a stream of them.

        Args:
            request: bytes of the message, or a stream of such.
            call: which method, and by whom.

        Raises:
            Ended: the call has failed.
        """
        with _explained(call):
            handler = await self._handler(call)
            response = await behaviour_of(handler)(self._decoded(handler, request), call)
            return _encoded(handler, response)

    async def stream(self, request: Any, call: RayCall) -> AsyncIterator[bytes]:
        """The answers to a message, or to a stream of them; otherwise as :meth:`call`."""
        with _explained(call):
            handler = await self._handler(call)
            responses = behaviour_of(handler)(self._decoded(handler, request), call)
            if inspect.isawaitable(responses):  # a refusal
                await responses
                return
            async with aclosing(responses) as answers:
                async for response in answers:
                    yield _encoded(handler, response)

    async def _handler(self, call: RayCall) -> Any:
        details: Any = _Details(call.path, call.invocation_metadata())
        handler = await self._find(details)
        if handler is None:
            raise Ended(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {call.path}")
        return handler

    async def _found(self, details: Any) -> Any:
        return next(filter(None, (service.service(details) for service in self._services)), None)

    def _decoded(self, handler: Any, request: Any) -> Any:
        """The message of its bytes, or a stream of them."""
        decode = handler.request_deserializer
        if decode is None:  # a refusal, which reads nothing
            return request
        if handler.request_streaming:
            return self._each(decode, request)
        return decode(self._checked(request))

    async def _each(
        self, decode: Callable[[bytes], Any], requests: AsyncIterator[bytes]
    ) -> AsyncIterator[Any]:
        async for request in requests:
            yield decode(self._checked(request))

    def _checked(self, data: bytes) -> bytes:
        """A message that is not too large; the proxy takes those of 2 GiB."""
        if len(data) > self._most:
            raise Ended(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the message has {len(data)} bytes, and may have {self._most}: send less in one",
            )
        return data

    # What a server with a socket has.

    def add_insecure_port(self, address: str) -> int:
        """Listen nowhere."""
        raise NotImplementedError(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen nowhere."""
        raise NotImplementedError(address, server_credentials)

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self, grace: float | None) -> None:
        """Do nothing."""

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Say that nothing ran."""
        return timeout is None


def _through(
    interceptor: grpc.aio.ServerInterceptor, then: Callable[[Any], Awaitable[Any]]
) -> Callable[[Any], Awaitable[Any]]:
    def find(details: Any) -> Awaitable[Any]:
        return interceptor.intercept_service(then, details)

    return find


def _encoded(handler: Any, response: Any) -> bytes:
    encode = handler.response_serializer
    data: bytes = encode(response) if encode else response
    return data


@contextmanager
def _explained(call: RayCall) -> Iterator[None]:
    """Fail as a call of gRPC's own server does where something unexpected is raised.

    Ray would send the error's representation, the process and the address of the replica.
    """
    try:
        yield
    except Ended:
        raise
    except Exception as error:
        log.exception("a call failed unexpectedly", rpc=call.path)
        raise Ended(
            grpc.StatusCode.UNKNOWN, f"Unexpected {type(error).__name__}: {error}"
        ) from None
