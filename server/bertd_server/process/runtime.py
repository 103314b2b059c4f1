"""What a process that only serves settles for its libraries; somebody else's never comes here.

- The event loop is uvloop's.
- The tokeniser does its work itself: to share a call of 32 short texts out to threads costs a tenth
  more than it does the work, and takes cores that the lanes have use for.
- Memory comes from one heap. With a heap for each thread, what one thread has freed another
  cannot use, and the process grows for hours (by 10 % over 100,000 requests of all kinds; 1 % so).
- A thread that computes in Python gives the interpreter back after half a ms. The event loop asks
  for it several times for each call; at Python's own 5 ms a neighbour of a large call waits twice
  as long at the 99th percentile.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

if sys.platform != "win32":
    import uvloop

T = TypeVar("T")

_SWITCH_SECONDS = 0.0005
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a server to its end."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _use_one_heap()
    sys.setswitchinterval(_SWITCH_SECONDS)
    if sys.platform == "win32":
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _use_one_heap() -> bool:
    """Where the C library is glibc, and its own variable does not say otherwise."""
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_ARENA_MAX, 1))
