"""What a start leaves for later ones: held while it is used, removed when nobody uses it.

::

    cache folder/
        bundles/                the embedded default model, exported
        prepacked/KEY/          weights that sessions map       }  held, touched, swept
        calibration/KEY.json    how long batches take           }
        …/KEY.SUFFIX            being written, or left by a start that was killed

A server holds a shared lock on what it maps, for as long as it lives; whoever would remove it
asks for an exclusive one. Where the system has no such locks, what is mapped counts as used for
`UNUSED_SECONDS` after the start.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import platformdirs

if sys.platform != "win32":
    import fcntl

UNUSED_SECONDS = 30 * 24 * 3600
"""What no start has used for so long is removed."""

SCRATCH_SECONDS = 24 * 3600
"""What is not finished so long after it was begun never will be."""

_NAME = re.compile(r"[0-9a-f]{32}(\.json)?(?P<scratch>.+)?")
_LOCK = ".lock"


def user_cache_folder() -> Path:
    """Where this user's servers keep things unless told otherwise: `XDG_CACHE_HOME` on Linux.

    A user whom the system does not know, as in containers, has no home unless `HOME` says so; then
    it is the root, as container engines have it.
    """
    try:
        return platformdirs.user_cache_path("bertd")
    except RuntimeError:
        return Path("/.cache/bertd")


def hold(path: Path, user: object) -> None:
    """Keep a file or folder from being swept, by any process, while `user` lives.

    What is not there, or cannot be locked, is not held. If it is being removed at this moment
    this waits until it is gone.
    """
    if sys.platform == "win32":  # a file that is mapped cannot be removed there
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(user, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def touch(path: Path) -> None:
    """Say that it was used now."""
    with contextlib.suppress(OSError):  # not ours: then it is not ours to sweep either
        os.utime(path)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """No other process is in here with the same folder, which must exist.

    Raises:
        OSError: the folder cannot be written to.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file or folder, so that nobody sees it half removed; no error if that fails."""
    with contextlib.suppress(OSError):
        aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
        with contextlib.suppress(OSError):
            path.rename(aside / path.name)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> list[str]:
    """Remove what no start has used for long, and what was never finished.

    Nothing that is held, and nothing whose name is not one of ours.

    Returns:
        Names of what was removed.
    """
    removed: list[str] = []
    with contextlib.suppress(OSError), one_at_a_time(folder):
        for path in sorted(folder.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            limit = SCRATCH_SECONDS if name["scratch"] else UNUSED_SECONDS
            if _remove_if_older(path, limit):
                removed.append(path.name)
    return removed


def _remove_if_older(path: Path, limit: float) -> bool:
    """Whether it was unused for so many seconds, and is removed."""
    if sys.platform == "win32":
        return _is_older(path, limit) and _is_gone(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _is_older(path, limit) and _is_gone(path)
    except OSError:  # held
        return False
    finally:
        os.close(descriptor)


def _is_older(path: Path, limit: float) -> bool:
    return time.time() - path.stat().st_mtime > limit


def _is_gone(path: Path) -> bool:
    discard(path)
    return not path.exists()
