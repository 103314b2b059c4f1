"""Resident memory as a scrape tells it: quick to read, unlike :mod:`bertd_server.models.memory`."""

from __future__ import annotations

from pathlib import Path

_ROLLUP = Path("/proc/self/smaps_rollup")


def resident() -> dict[str, int]:
    """Bytes of this process by kind; empty elsewhere than on Linux.

    `anonymous` is its own: the arena of ONNX Runtime, Python's objects. `file` is what it maps,
    weights above all: a page that two sessions map counts once, and one that two processes share
    counts half for each. https://docs.kernel.org/filesystems/proc.html
    """
    try:
        lines = _ROLLUP.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return {}
    sizes = {
        name: 1024 * int(size.split()[0]) for name, _, size in (x.partition(":") for x in lines)
    }
    file = sizes.get("Pss_File", 0) + sizes.get("Pss_Shmem", 0)
    return {"anonymous": sizes["Anonymous"], "file": file}
