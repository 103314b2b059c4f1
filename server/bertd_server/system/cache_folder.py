"""What a start leaves for later ones: held while it is used, removed when nobody uses it.

::

    cache folder/
        bundles/                the embedded default model, exported
        prepacked/KEY/          weights that sessions map       }  held, touched, swept
        calibration/KEY.json    how long batches take           }
        …/KEY.SUFFIX            being written, or left by a start that was killed

A server holds a shared lock on what it maps, for as long as it lives; whoever would remove it
asks for an exclusive one. So does whoever writes, so that what a killed process has left is known
at the next start. Where the system has no such locks, what is mapped counts as used for
`UNUSED_SECONDS` after the start, and what was begun as being written for a day.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import weakref
from pathlib import Path

import platformdirs
from bertd.bundle import scratch

UNUSED_SECONDS = 30 * 24 * 3600
"""What no start has used for so long is removed."""

_NAME = re.compile(r"[0-9a-f]{32}(\.json)?(?P<scratch>.+)?")


def user_cache_folder() -> Path:
    """Where this user's servers keep things unless told otherwise: `XDG_CACHE_HOME` on Linux.

    A user whom the system does not know, as in containers, has no home unless `HOME` says so; then
    it is the root, as container engines have it.
    """
    try:
        return platformdirs.user_cache_path("bertd")
    except RuntimeError:
        return Path("/.cache/bertd")


def obstacle(folder: Path) -> str:
    """Why nothing can be kept in a folder, in the system's words; empty if it can, or is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def hold(path: Path, user: object) -> None:
    """Keep a file or folder from being swept, by any process, while `user` lives.

    What is not there, or cannot be locked, is not held. If it is being removed at this moment
    this waits until it is gone.
    """
    descriptor = scratch.held(path)  # a file that is mapped cannot be removed on Windows
    if descriptor is not None:
        weakref.finalize(user, os.close, descriptor)


def touch(path: Path) -> None:
    """Say that it was used now."""
    with contextlib.suppress(OSError):  # not ours: then it is not ours to sweep either
        os.utime(path)


def write(path: Path, content: str) -> None:
    """Write a small file of a cache whole or not at all.

    Raises:
        OSError: that failed; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch.one_at_a_time(path.parent):  # no sweep takes the file before it has its name
        descriptor, unnamed = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            Path(unnamed).replace(path)
        except OSError:
            Path(unnamed).unlink(missing_ok=True)
            raise


def discard(path: Path) -> None:
    """Remove a file or folder, so that nobody sees it half removed; no error if that fails."""
    with contextlib.suppress(OSError):
        aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
        with contextlib.suppress(OSError):
            path.rename(aside / path.name)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> list[str]:
    """Remove what no start has used for long, and what nobody writes any more.

    Nothing that is held, and nothing whose name is not one of ours.

    Returns:
        Names of what was removed.
    """
    removed: list[str] = []
    with contextlib.suppress(OSError), scratch.one_at_a_time(folder):
        for path in sorted(folder.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name is None or not (name["scratch"] or _is_older(path, UNUSED_SECONDS)):
                continue
            with scratch.unheld(path) as free:
                if free and _is_gone(path):
                    removed.append(path.name)
    return removed


def _is_older(path: Path, limit: float) -> bool:
    return time.time() - path.stat().st_mtime > limit


def _is_gone(path: Path) -> bool:
    discard(path)
    return not path.exists()
