"""Work on many small parts of a response, kept from holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INLINE_PARTS = 1_000
"""Messages or JSON for so many tokens, entities or candidates take some ms to make."""


async def offloaded(work: Callable[[], T], *, parts: int) -> T:
    """What makes so many small parts, off the event loop if they are many."""
    return work() if parts <= INLINE_PARTS else await asyncio.to_thread(work)
