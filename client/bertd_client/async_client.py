"""The client for asyncio; :mod:`bertd_client.client` is its twin for ordinary code.

What a method asks stands in :mod:`bertd_client.tasks`, how it is split in
:mod:`bertd_client.calling.splitting`; here is only how calls are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

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
from bertd_client.connection.security import OPEN, Security, open_async_channel
from bertd_client.errors import BertdError, from_rpc_error
from bertd_client.methods import AsyncClientMethods

R = TypeVar("R")


class AsyncClient(AsyncClientMethods):
    """Connections to one server or several; make it and use it in one event loop.

    ::

        async with AsyncClient("127.0.0.1:8001") as client:
            vectors = await client.embed(["one text", "another"])

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
        self._channel = open_async_channel(where, options, security)
        self._metadata = security.metadata
        self._stubs = stubs(self._channel)

    async def close(self) -> None:
        """Closes the connections; calls that still run are cancelled."""
        await self._channel.close()

    async def _bulk(self, request: BulkRequest[R]) -> list[R | BertdError]:
        rpc = self._stubs[request.rpc]
        with Progress(len(request.inputs), request.field, shown=request.progress) as progress:
            work = Work(request, self._limits, progress.add)
            in_flight: dict[asyncio.Task[Any], Chunk] = {}
            try:
                while in_flight or work.waits():
                    while work.waits() and len(in_flight) < self._concurrency:
                        chunk = work.take()
                        call = self._call(rpc, request.message(chunk), work.remaining())
                        if not in_flight and not work.waits():  # the only one needs no task
                            await _settle(work, chunk, call)
                        else:
                            in_flight[asyncio.create_task(call)] = chunk
                    if in_flight:
                        done, _ = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
                        for task in done:
                            await _settle(work, in_flight.pop(task), task)
            finally:
                for task in in_flight:
                    task.cancel()
                await asyncio.gather(*in_flight, return_exceptions=True)
            return work.outcomes()

    async def _single(self, request: SingleRequest[R]) -> R:
        rpc = self._stubs[request.rpc]
        return request.read(await self._call(rpc, request.message, request.timeout))

    async def _call(self, rpc: Any, request: Any, timeout: float | None) -> Any:  # noqa: ASYNC109 - the deadline is gRPC's
        try:
            return await rpc(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _settle(work: Work[Any], chunk: Chunk, call: Awaitable[Any]) -> None:
    try:
        response = await call
    except BertdError as error:
        work.refuse(chunk, error)
    else:
        work.answer(chunk, response)
