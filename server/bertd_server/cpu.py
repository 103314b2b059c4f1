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
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")

_KIND = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "flags", "Features")


def quota_cores(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> float:
    """CPU quota of this process in cores; infinity where there is none.

    A group has no more than any group above it, so that the least quota on the way up counts. In
    a container, where the mount may begin at the process's own group, the way is the root alone;
    under systemd's `CPUQuota=` the root has no quota and the service's group has.

    Args:
        root: where cgroups are mounted.
        own: the groups of this process, one a line: `hierarchy:controllers:path`.
    """
    return min((_quota(group) for group in _groups(root, own)), default=math.inf)


def usable_threads(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> int:
    """Threads that can run at once here; at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(affinity or 1, math.floor(min(quota_cores(root, own), 1e6))))


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """Folders of the groups that bound this process's time, from its own up to each mount's root.

    cgroup v2 names no controllers and is mounted at the root, or below it beside v1.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "0:cpu:/", *lines]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [root / "cpu", root / controllers] if controllers else [root, root / "unified"]
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # outside of what this process can see
            group = PurePosixPath()
        for mount in mounts:
            for step in (group, *group.parents):
                yield mount / step


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
