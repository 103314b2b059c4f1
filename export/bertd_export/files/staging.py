"""A folder that appears whole or not at all, whatever ends its making: an error or a signal.

::

    staged(output): .output.xxxxxxxx/ (hidden, beside it) ──publish──> output/
                           ├── any error, SIGINT, SIGTERM ──> removed
                           └── SIGKILL ──> removed by the next export to the same output
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bertd.bundle import scratch

from bertd_export.errors import ExportError

_OLD = ".old"
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise :class:`Interrupted` on the first SIGINT or SIGTERM; ignore more while cleaning up.

    A signal that is ignored already stays so. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def stop(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """An empty folder on the disk of ``output``, removed at the end if it is still there.

    Raises:
        ExportError: nothing can be written there, or the disk ran full on the way. Another
            :class:`OSError` passes unless it names a path there: it is not about ``output``.
    """
    ancestor = next(path for path in output.parents if path.is_dir())
    prefix = f".{output.name}."
    scratch.swept(ancestor, prefix)
    if output.exists():  # else it may be all that is left of what was there
        scratch.swept(ancestor, prefix, re.escape(_OLD))
    with contextlib.ExitStack() as stack:
        try:
            staging = stack.enter_context(scratch.made(ancestor, prefix))
        except OSError as error:
            raise ExportError(f"{output} cannot be written: {error}") from error
        try:
            staging.chmod(0o755)
            yield staging
        except OSError as error:
            if error.errno not in _WRITING and not _names(error, staging, output):
                raise
            raise ExportError(f"{output} cannot be written: {error}") from error


def _names(error: OSError, staging: Path, output: Path) -> bool:
    """Whether the error names a path inside the staging folder, or one that leads to the output."""
    if not isinstance(error.filename, str | Path):
        return False
    path = Path(error.filename)
    return path.is_relative_to(staging) or output.is_relative_to(path)


def publish(staging: Path, output: Path) -> None:
    """Move a finished folder to its place; an older one goes only after that."""
    made = _make_parents(output)
    old = staging.with_name(f"{staging.name}{_OLD}")
    holding = scratch.held(output)  # nobody sweeps the old one before the new one is there
    try:
        if output.exists():
            output.replace(old)
        staging.replace(output)
    except BaseException:
        if old.exists() and not output.exists():
            old.replace(output)
        for parent in made:
            os.rmdir(parent)  # noqa: PTH106 - refuses, as it should, where others wrote meanwhile
        raise
    finally:
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
        if holding is not None:
            os.close(holding)


def _make_parents(output: Path) -> list[Path]:
    """The parents that had to be made, the deepest first."""
    missing = [path for path in output.parents if not path.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    return missing
