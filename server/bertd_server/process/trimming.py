"""Freed memory goes back to the system, once a large call has ended, or was refused.

glibc gives back by itself what lies at the end of its heap; a small object of another call that
lies above keeps all of a large one. ``malloc_trim`` gives back whole pages wherever they lie. The
heap is locked meanwhile, some tens of ms for 100 MiB: so it is called once for all calls that end
together, and never for small ones.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_PAUSE = 0.5  # seconds after a call: by then its answer has been sent


def trim_function() -> Callable[[], object] | None:
    """Glibc's `malloc_trim`; None where there is another C library."""
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


class Trimmer:
    """Trims the heap, on a thread of its own. Use it on one event loop."""

    def __init__(self, trim: Callable[[], object] | None = None) -> None:
        """Trim nothing yet.

        Args:
            trim: gives freed memory back; by default glibc's function, where it is there.
        """
        self._trim = trim or trim_function()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bertd-trim")
        self._waits = False

    def soon(self) -> None:
        """Trim in a moment; once, however often this is said meanwhile."""
        if self._trim is not None and not self._waits:
            self._waits = True
            asyncio.get_running_loop().call_later(_PAUSE, self._begin, self._trim)

    def close(self) -> None:
        """Trim no more."""
        self._trim = None
        self._thread.shutdown(wait=False)

    def _begin(self, trim: Callable[[], object]) -> None:
        self._waits = False
        if self._trim is not None:
            self._thread.submit(trim)
