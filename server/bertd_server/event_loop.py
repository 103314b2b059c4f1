"""The event loop of a process that only serves, and what such a process settles for its libraries.

Somebody else's process runs its own loop and never comes here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a server to its end, on the fastest loop there is."""
    # The tokeniser would share a call of a few texts out to threads, which costs a tenth more than
    # it does the work, and takes cores that the lanes have use for.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
