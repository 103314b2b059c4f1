"""Folders that are being written, and how those are told from what a killed process has left.

::

    made(parent, prefix) ──> PREFIXxxxxxxxx/, locked while its maker lives ──> renamed, or removed
    swept(parent, …) ──> those that nobody holds are removed

Both look at one folder at a time, so that none is swept between its making and its locking. A
lock is the system's (flock) and ends with the process, however that ends. Where there are no such
locks, what was begun a day ago counts as left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

ABANDONED_SECONDS = 24 * 3600
"""What is not finished so long after it was begun never will be."""

_RANDOM = r"[a-z0-9_]{8}"  # as mkdtemp ends a name


@contextlib.contextmanager
def made(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder that no sweep removes; it is removed at the end if it is still there.

    Args:
        parent: folder to make it in.
        prefix: of its name; eight characters follow.

    Raises:
        OSError: nothing can be written there.
    """
    with one_at_a_time(parent):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        descriptor = held(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def held(path: Path) -> int | None:
    """Keep a file or folder from being swept: until the descriptor is closed, or the process ends.

    Returns:
        the descriptor; None where it is not there, or nothing can be locked.
    """
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def swept(parent: Path, prefix: str, suffix: str = "") -> list[str]:
    """Remove the folders of :func:`made` that nobody holds.

    Args:
        parent: that they were made in.
        prefix: as it was given.
        suffix: a pattern of what may follow the random characters of a name.

    Returns:
        names of what was removed.
    """
    name = re.compile(f"{re.escape(prefix)}{_RANDOM}{suffix}")
    removed = []
    with contextlib.suppress(OSError), one_at_a_time(parent):
        for path in sorted(parent.iterdir()):
            if not name.fullmatch(path.name) or not path.is_dir():
                continue
            with unheld(path) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)
                    removed.append(path.name)
    return removed


@contextlib.contextmanager
def unheld(path: Path, seconds: float = ABANDONED_SECONDS) -> Iterator[bool]:
    """Whether nobody holds a file or folder; while this lasts nobody else can.

    Args:
        path: of it.
        seconds: since its last change, after which nobody does where nothing can be locked.
    """
    descriptor = None
    try:
        if sys.platform != "win32":
            descriptor = os.open(path, os.O_RDONLY)
        free = _is_locked(descriptor, path, seconds)
    except OSError:  # gone, or not ours to read
        free = False
    try:
        yield free
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_locked(descriptor: int | None, path: Path, seconds: float) -> bool:
    """Whether it could be locked for us alone, or is old where nothing can be locked.

    Raises:
        OSError: it is gone.
    """
    if sys.platform != "win32" and descriptor is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        else:
            return True
    return time.time() - path.stat().st_mtime > seconds


@contextlib.contextmanager
def one_at_a_time(folder: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """No other process is in here with the same folder, which must exist.

    Args:
        folder: that both would be in.
        waits: called before this waits for another process.

    Raises:
        OSError: the folder is not there, or cannot be read.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
