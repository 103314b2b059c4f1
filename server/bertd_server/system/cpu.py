"""What CPU this process has: how many threads of it, min(affinity, quota), and which kind.

The host's count of cores is never right in a container.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import sys
import threading
from pathlib import Path

from bertd_server.system.cgroups import CGROUP_ROOT, OWN_GROUPS, groups

_THREADS = Path("/proc/self/task")
_KIND = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "flags", "Features")


def quota_cores(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> float:
    """CPU quota of this process in cores; infinity where there is none.

    Args:
        root: where cgroups are mounted.
        own: the groups of this process, one a line: `hierarchy:controllers:path`.
    """
    return min((_quota(group) for group in groups("cpu", root, own)), default=math.inf)


def usable_threads(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> int:
    """Threads that can run at once here; at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(affinity or 1, math.floor(min(quota_cores(root, own), 1e6))))


def usable_cores() -> float:
    """Cores that this process may use at once, a quota's fractions included."""
    return min(float(usable_threads()), quota_cores())


def waited_for_cores() -> float | None:
    """Seconds that threads of this process were ready and had no core, all of them together.

    Linux alone says it; None elsewhere.
    """
    waited = 0
    try:
        threads = list(_THREADS.iterdir())
    except OSError:
        return None
    for thread in threads:
        try:
            waited += int((thread / "schedstat").read_text().split()[1])
        except (ProcessLookupError, FileNotFoundError):
            if thread.exists():
                return None  # a kernel that does not count
        except (OSError, IndexError, ValueError):
            return None
    return waited / 1e9


def _quota(group: Path) -> float:
    """Cores: ``cpu.max`` of v2, or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` of v1."""
    try:
        quota, period = (group / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    if quota == "max" or int(quota) <= 0:
        return math.inf
    return int(quota) / int(period)


@functools.cache
def identity() -> str:
    """Architecture, model and instruction sets of the CPU, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    said = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    kind = [said.get(name, "") for name in _KIND]
    return "\n".join([platform.machine(), *(kind if any(kind) else [platform.processor()])])


def step_back(niceness: int) -> None:
    """Make the calling thread, and those that it will start, wait behind the others.

    The event loop then has a core at once: it needs little, and all callers wait for it. On Linux
    alone; elsewhere niceness belongs to the process.
    """
    if niceness and sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
