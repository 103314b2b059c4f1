"""Where the `bertd` command begins, and what a signal does until its packages are there.

::

    bertd serve ──> SIGINT, SIGTERM end it with 0 from here on: it has taken nothing yet
    bertd …     ──> SIGINT ends it as the system does, then as Python does: no traceback of imports

Packages take some tenths of a second to import. This module imports nothing of ours and little
else, so that those are not a time in which a signal leaves a traceback or another exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

STOPS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the command."""
    begin(sys.argv[1:2])
    import_module("bertd_client.cli").main()


def begin(command: Sequence[str]) -> None:
    """Say what signals do for now.

    Args:
        command: the sub-command, if there is one.
    """
    if list(command) == ["serve"]:
        end_early()
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        import_module("bertd_client.cli")
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_early() -> None:
    """Have signals to stop end the process with 0; a supervisor may have held them back so far."""
    for number in STOPS:
        signal.signal(number, lambda *_: os._exit(0))
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*STOPS, signal.SIGHUP])
