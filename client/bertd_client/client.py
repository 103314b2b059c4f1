"""The client for ordinary code; :mod:`bertd_client.async_client` is its twin for asyncio.

What a method asks stands in :mod:`bertd_client.tasks`, how it is split in
:mod:`bertd_client.calling.splitting`; here is only how calls are made.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from bertd_client.calling.asking import BulkRequest, SingleRequest
from bertd_client.calling.progress import Progress
from bertd_client.calling.splitting import (
    CALL_BYTES,
    CALL_INPUTS,
    CALLS_AT_ONCE,
    Chunk,
    ChunkLimits,
    Work,
    at_least_one,
)
from bertd_client.connection.channel import DEFAULT_ADDRESS, stubs, target
from bertd_client.connection.security import OPEN, Security, open_channel
from bertd_client.errors import BertdError, from_rpc_error
from bertd_client.methods import ClientMethods

R = TypeVar("R")


class Client(ClientMethods):
    """Connections to one server or several; threads may share it.

    ::

        with Client("127.0.0.1:8001") as client:
            vectors = client.embed(["one text", "another"])

    A method raises :class:`BertdError` when a call fails or an input has no answer; its ``index``
    then says which. Its twin with ``_each`` gives the errors of inputs among the answers.

    Many inputs are split into calls that the server takes, a few of which are made at once; results
    come in the order of the inputs. The options of each method are in
    :mod:`bertd_client.calling.options`.

    Args:
        address: Host and port, or any other gRPC target, such as ``unix:/run/bertd.sock``. Calls
            take turns among several (a sequence, or separated by commas) and among the addresses
            of a name, and pass over a server that is down or draining.
        concurrency: Calls that one method makes at once, at most.
        inputs_per_call: Most inputs of one call. Where a server takes fewer, they are split anew.
        bytes_per_call: Most bytes of texts in one call, likewise.
        security: TLS, a certificate, an API key; none by default.
        weighted: Freer servers get more calls instead of each the same, where servers have
            ``--load-reports=on``.

    Raises:
        ValueError: The address is none, or a setting is below 1.
    """

    def __init__(  # noqa: PLR0913 - keywords
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        concurrency: int = CALLS_AT_ONCE,
        inputs_per_call: int = CALL_INPUTS,
        bytes_per_call: int = CALL_BYTES,
        security: Security = OPEN,
        weighted: bool = False,
    ) -> None:
        self.address = address
        self._concurrency = at_least_one("concurrency", concurrency)
        self._limits = ChunkLimits(
            inputs=at_least_one("inputs_per_call", inputs_per_call),
            message_bytes=at_least_one("bytes_per_call", bytes_per_call),
        )
        where, options = target(address, weighted=weighted)
        self._channel = open_channel(where, options, security)
        self._metadata = security.metadata
        self._stubs = stubs(self._channel)

    def close(self) -> None:
        """Closes the connections; calls that still run are cancelled."""
        self._channel.close()

    def _bulk(self, request: BulkRequest[R]) -> list[R | BertdError]:
        rpc = self._stubs[request.rpc]
        with Progress(len(request.inputs), request.field, shown=request.progress) as progress:
            work = Work(request, self._limits, progress.add)
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            in_flight: dict[Any, Chunk] = {}
            try:
                while in_flight or work.waits():
                    while work.waits() and len(in_flight) < self._concurrency:
                        chunk = work.take()
                        message, timeout = request.message(chunk), work.remaining()
                        if not in_flight and not work.waits():  # the only one needs no queue
                            ask = partial(rpc, message, timeout=timeout, metadata=self._metadata)
                            _settle(work, chunk, ask)
                        else:
                            call = rpc.future(message, timeout=timeout, metadata=self._metadata)
                            in_flight[call] = chunk
                            call.add_done_callback(done.put)
                    if in_flight:
                        call = done.get()
                        _settle(work, in_flight.pop(call), call.result)
            finally:
                for call in in_flight:
                    call.cancel()
            return work.outcomes()

    def _single(self, request: SingleRequest[R]) -> R:
        rpc = self._stubs[request.rpc]
        try:
            response = rpc(request.message, timeout=request.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return request.read(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _settle(work: Work[Any], chunk: Chunk, result: Callable[[], Any]) -> None:
    try:
        response = result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        work.refuse(chunk, from_rpc_error(error))
    else:
        work.answer(chunk, response)
