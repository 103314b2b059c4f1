"""Streams of requests: each answered by one response, in order, a few in work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")

IN_WORK = 8  # requests of one stream; the sender is held back by gRPC's flow control


async def in_order(
    requests: AsyncIterator[Request],
    work: Callable[[Request], Awaitable[Response]],
    in_work: int = IN_WORK,
) -> AsyncIterator[Response]:
    """Work on requests as they come, and give their responses in that order.

    No more are read than are in work, fewer than `in_work`. Whoever leaves cancels what is in work.
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
    try:
        while (task := await tasks.get()) is not None:
            try:
                yield await task
            finally:
                task.cancel()
                room.release()
        await reader
    finally:
        reader.cancel()
        while not tasks.empty():
            left = tasks.get_nowait()
            if left is not None:
                left.cancel()
