"""How many threads this process may use: min(affinity, cgroup quota), never the host's count."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def quota_cores(root: Path = CGROUP_ROOT) -> float:
    """CPU quota of this process's cgroup in cores; infinity where there is none.

    Reads ``cpu.max`` of cgroup v2, or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` of v1.
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    if quota == "max" or int(quota) <= 0:
        return math.inf
    return int(quota) / int(period)


def usable_threads(root: Path = CGROUP_ROOT) -> int:
    """Threads that can run at once here; at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(affinity or 1, math.floor(min(quota_cores(root), 1e6))))
