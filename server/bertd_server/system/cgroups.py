"""The cgroups of this process: what bounds its time and memory, besides the machine.

A group has no more than any group above it, so that the least limit on the way up counts. In a
container, where the mount may begin at the process's own group, the way is the root alone; under
systemd the root has no limit and the service's group has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")

# Of the limit. Memory beyond 1.1 times the setting ends the server (process.watchdog), and that
# must come before the kernel ends it.
_SHARE = 0.9
_UNBOUNDED = 2**62  # v1 has a number for "no limit": the largest multiple of a page


def groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Folders of the groups that bound this process, from its own up to each mount's root.

    cgroup v2 names no controllers and is mounted at the root, or below it beside v1.

    Args:
        controller: what they bound, such as `cpu`.
        root: where cgroups are mounted.
        own: the groups of this process, one a line: `hierarchy:controllers:path`.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in ["0::/", f"0:{controller}:/", *lines]:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (
            [root / controller, root / controllers] if controllers else [root, root / "unified"]
        )
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # outside of what this process can see
            group = PurePosixPath()
        for mount in mounts:
            for step in (group, *group.parents):
                yield mount / step


def memory_limit(root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> int:
    """Bytes that a server may take here: nine tenths of the least limit; 0 where there is none.

    Args:
        root: where cgroups are mounted.
        own: the groups of this process.
    """
    least = min(map(_memory, groups("memory", root, own)), default=_UNBOUNDED)
    return 0 if least >= _UNBOUNDED else int(least * _SHARE)


def _memory(group: Path) -> int:
    """Bytes: ``memory.max`` of v2, or ``memory.limit_in_bytes`` of v1."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            said = (group / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(said) if said.isdecimal() else _UNBOUNDED
    return _UNBOUNDED
