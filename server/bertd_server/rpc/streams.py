"""Streams of requests: each answered by one response, in order, a few in work at a time.

::

    requests ──read while there is room──> tasks, oldest first ──> responses
       │ ends, or fails                                     │
       └──── once the tasks before it are done <────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar, cast

from google.protobuf.message import Message

from bertd_server.errors import Draining

Request = TypeVar("Request")
Response = TypeVar("Response")

# Requests of one stream, and their bytes as they came; one may be larger. The sender is held back
# by gRPC's flow control.
IN_WORK = 8
BYTES_IN_WORK = 4 * 2**20


async def in_order(
    requests: AsyncIterator[Request],
    work: Callable[[Request], Awaitable[Response]],
    closing: asyncio.Event,
    in_work: int = IN_WORK,
) -> AsyncIterator[Response]:
    """Work on requests as they come, and give their responses in that order.

    One more is read than may be in work, by number or by bytes. What `requests` raises is raised
    once those before it are answered. Whoever leaves cancels what is in work.

    Args:
        requests: the stream.
        work: answers one.
        closing: once it is set no more are read.
        in_work: requests at once.

    Raises:
        Draining: `closing` was set before the stream ended; what was read is answered.
    """
    tasks: asyncio.Queue[tuple[asyncio.Future[Response], int] | None] = asyncio.Queue(in_work)
    room = _Room(in_work - 1)  # one place is for the end

    async def read() -> None:
        try:
            async for request in requests:
                size = request.ByteSize() if isinstance(request, Message) else 0
                await room.take(size)
                tasks.put_nowait((asyncio.ensure_future(work(request)), size))
        finally:
            tasks.put_nowait(None)

    reader = asyncio.ensure_future(read())

    async def close() -> None:
        await closing.wait()
        reader.cancel()

    closer = asyncio.ensure_future(close())
    try:
        while (first := await tasks.get()) is not None:
            task, size = first
            try:
                yield await task
            finally:
                task.cancel()
                room.give_back(size)
        await _end(reader, closing)
    finally:
        closer.cancel()
        reader.cancel()
        while not tasks.empty():
            left = tasks.get_nowait()
            if left is not None:
                left[0].cancel()


class _Room:
    """For so many requests, and so many bytes of them, or for one."""

    def __init__(self, requests: int) -> None:
        self._left = requests
        self._bytes = 0
        self._all = requests
        self._changed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Have room for a request, once there is."""
        while not self._left or (self._left < self._all and self._bytes + size > BYTES_IN_WORK):
            self._changed.clear()
            await self._changed.wait()
        self._left -= 1
        self._bytes += size

    def give_back(self, size: int) -> None:
        """Have one request less in work."""
        self._left += 1
        self._bytes -= size
        self._changed.set()


async def _end(reader: asyncio.Future[None], closing: asyncio.Event) -> None:
    """Raise what ended the stream, if it was not its sender."""
    await asyncio.wait([reader])
    if reader.cancelled() and closing.is_set():
        raise Draining("the server is shutting down: send the rest of the stream to another one")
    reader.result()


def closed_after_use(stream: AsyncIterator[Response]) -> aclosing[AsyncGenerator[Response]]:
    """A generator that is closed, and so cancels what is in work, when its reader leaves."""
    return aclosing(cast("AsyncGenerator[Response]", stream))
