"""A limit of time, which costs nothing where nothing is waited for.

::

    work ──first step──> ended: its value, and no timer was made
                └──────> waits ──> asyncio.timeout ──> its other steps
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def limited(work: Coroutine[Any, Any, T], seconds: Callable[[], float | None]) -> T:
    """The value of some work, which is cancelled when its time is up.

    Args:
        work: not begun.
        seconds: that it has from the first time on that it waits; None for no limit. Asked then.

    Raises:
        TimeoutError: its time is up.
    """
    try:
        awaited = work.send(None)
    except StopIteration as ended:
        value: T = ended.value
        return value
    async with asyncio.timeout(seconds()):
        return await _resumed(work, awaited)


@coroutine
def _resumed(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """The other steps of work that has begun, and waits for something; as `yield from` has them."""
    try:
        while True:
            try:
                given = yield awaited
            except BaseException as error:  # noqa: BLE001 - it is the work's
                awaited = work.throw(error)
            else:
                awaited = work.send(given)
    except StopIteration as ended:
        value: T = ended.value
        return value
