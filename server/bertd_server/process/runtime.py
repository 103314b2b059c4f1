"""What a process that only serves settles for its libraries; somebody else's never comes here.

- The event loop is uvloop's.
- The tokeniser does its work itself: to share a call of 32 short texts out to threads costs a tenth
  more than it does the work, and takes cores that the lanes have use for.
- Memory comes from one heap. With a heap for each thread, what one thread has freed another
  cannot use, and the process grows for hours (by 10 % over 100,000 requests of all kinds; 1 % so).
  Its end is given back where 16 MiB are free there, and blocks from 8 MiB on lie elsewhere: by
  itself glibc gives back, and takes anew, the pages of each message of 4 MiB that comes in, which
  held the event loop for 4.5 ms instead of 1.6.
- As many files may be open as the system lets: `--max-connections` are nearly all of the 1,024 that
  shells give, and without one more there are neither probes nor calls.
- A thread that computes in Python gives the interpreter back after half a ms. The event loop asks
  for it several times for each call; at Python's own 5 ms a neighbour of a large call waits twice
  as long at the 99th percentile.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

if sys.platform != "win32":
    import resource

    import uvloop

T = TypeVar("T")

_SWITCH_SECONDS = 0.0005
_HEAP = (  # of malloc.h: the number of a setting, the C library's own variable for it, a value
    (-8, "MALLOC_ARENA_MAX", 1),
    (-3, "MALLOC_MMAP_THRESHOLD_", 8 * 2**20),
    (-1, "MALLOC_TRIM_THRESHOLD_", 16 * 2**20),
)
_FILES = 65_536  # enough for any number of connections that one process serves


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a server to its end."""
    settle()
    if sys.platform == "win32":
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def settle() -> None:
    """Settle all but the event loop, in a process that only serves but has a loop already."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _use_one_heap()
    _allow_files()
    sys.setswitchinterval(_SWITCH_SECONDS)


def _use_one_heap() -> None:
    """Where the C library is glibc, and its own variables do not say otherwise."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    for number, variable, value in _HEAP:
        if variable not in os.environ:
            mallopt(number, value)


def _allow_files() -> None:
    """Raise the soft limit of open files, as far as the hard one allows."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # as macOS does beyond its own limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
