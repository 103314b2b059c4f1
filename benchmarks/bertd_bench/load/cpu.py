"""Who used the cores: CPU time of a process by its kinds of thread, from /proc (Linux)."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

EVENT_LOOP = "event loop"  # the main thread
TRANSPORT = "gRPC threads"
REST = "lanes and tokeniser"

_TRANSPORT_NAMES = ("grpc", "event_engine", "timer_manager", "resolver", "lifeguard")


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU seconds that a process has used so far, by kind of thread; empty without /proc."""
    ticks = os.sysconf("SC_CLK_TCK")
    seconds: dict[str, float] = defaultdict(float)
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        user, system = rest.split()[11:13]
        seconds[_kind(task.name == str(pid), name)] += (int(user) + int(system)) / ticks
    return dict(seconds)


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """CPU seconds between two readings."""
    return {kind: after[kind] - before.get(kind, 0.0) for kind in after}


def _kind(main: bool, name: str) -> str:
    if main:
        return EVENT_LOOP
    return TRANSPORT if name.startswith(_TRANSPORT_NAMES) else REST
