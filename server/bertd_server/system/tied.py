"""Runs a command that does not outlive the process that started it, however that one ends.

::

    python -m bertd_server.system.tied PID command …    PID starts this, from its main thread
        └──> the kernel is told to kill this process with its parent ──> becomes the command

Only Linux kills so; elsewhere the command runs all the same. The kernel looks at the thread that
started this: one that ends earlier than its process would end the command with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # prctl.h


def tied(command: Sequence[str]) -> list[str]:
    """A command that ends with this process, for the main thread to start."""
    return [sys.executable, "-P", "-m", __name__, str(os.getpid()), *command]


def main() -> None:
    """Tie this process to its parent, and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it has ended before the kernel knew
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - what our parent says


if __name__ == "__main__":
    main()
