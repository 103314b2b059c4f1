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

from bertd_server.errors import Draining

Request = TypeVar("Request")
Response = TypeVar("Response")

IN_WORK = 8  # requests of one stream; the sender is held back by gRPC's flow control


async def in_order(
    requests: AsyncIterator[Request],
    work: Callable[[Request], Awaitable[Response]],
    closing: asyncio.Event,
    in_work: int = IN_WORK,
) -> AsyncIterator[Response]:
    """Work on requests as they come, and give their responses in that order.

    One more is read than may be in work. What `requests` raises is raised once those before it are
    answered. Whoever leaves cancels what is in work.

    Args:
        requests: the stream.
        work: answers one.
        closing: once it is set no more are read.
        in_work: requests at once.

    Raises:
        Draining: `closing` was set before the stream ended; what was read is answered.
    """
    tasks: asyncio.Queue[asyncio.Future[Response] | None] = asyncio.Queue(in_work)

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                tasks.put_nowait(asyncio.ensure_future(work(request)))
        finally:
            tasks.put_nowait(None)

    room = asyncio.Semaphore(in_work - 1)  # one place is for the end
    reader = asyncio.ensure_future(read())

    async def close() -> None:
        await closing.wait()
        reader.cancel()

    closer = asyncio.ensure_future(close())
    try:
        while (task := await tasks.get()) is not None:
            try:
                yield await task
            finally:
                task.cancel()
                room.release()
        await _end(reader, closing)
    finally:
        closer.cancel()
        reader.cancel()
        while not tasks.empty():
            left = tasks.get_nowait()
            if left is not None:
                left.cancel()


async def _end(reader: asyncio.Future[None], closing: asyncio.Event) -> None:
    """Raise what ended the stream, if it was not its sender."""
    await asyncio.wait([reader])
    if reader.cancelled() and closing.is_set():
        raise Draining("the server is shutting down: send the rest of the stream to another one")
    reader.result()


def closed_after_use(stream: AsyncIterator[Response]) -> aclosing[AsyncGenerator[Response]]:
    """A generator that is closed, and so cancels what is in work, when its reader leaves."""
    return aclosing(cast("AsyncGenerator[Response]", stream))
