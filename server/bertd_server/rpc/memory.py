"""Memory of calls that only tokenise; those that compute have it in :func:`tasks.ask.ask`."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from bertd_server.models.model import Model


class _Context(Protocol):
    def time_remaining(self) -> float | None: ...


async def reserve(model: Model, size: int, request: int, context: _Context, field: str) -> None:
    """Have bytes for a call until its task ends, with its answer sent.

    Args:
        model: that is asked.
        size: bytes, as :mod:`bertd_server.tasks.footprint` says.
        request: of these, what the request takes while it waits.
        context: of the call, for its deadline.
        field: of the request, that makes it large.

    Raises:
        RequestError: there is no room.
    """
    remaining = context.time_remaining()
    deadline = math.inf if remaining is None else time.monotonic() + remaining
    memory = await model.reserve(size, request, deadline=deadline, field=field)
    memory.release_after(asyncio.current_task())
