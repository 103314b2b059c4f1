"""Makes a folder once per run of the tests, whichever of xdist's workers needs it first.

::

    worker 0 ──lock──> make, mark as whole ──┐
    worker 1 ──lock, wait────────────────────┴──> the same folder, to be read alone
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled, in this process or in another; nobody may change it.

    Args:
        factory: of this worker; below its folder, or below the one that all workers have.
        name: of the folder, which says all that its contents depend on.
        make: is given the folder, which is empty.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, whole = root / "once" / name, root / "once" / f"{name}.whole"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
