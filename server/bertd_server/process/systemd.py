"""What the process tells whoever manages it, in systemd's protocol.

::

    READY=1, STATUS=…, RELOADING=1, STOPPING=1, WATCHDOG=1
        ──> NOTIFY_SOCKET     systemd: a datagram for each message
        ──> BERTD_SUPERVISOR  our own parent: the same, on a stream, with a null byte after each

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. Without a manager nothing
is opened and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

from bertd_server.system.logs import get_logger

log = get_logger("bertd")

SUPERVISOR = "BERTD_SUPERVISOR"
"""Names the descriptor of the socket to our own parent."""


class Manager:
    """Whoever started this process and wants to know how it is; this one hears nothing."""

    watchdog_seconds = 0.0
    """Within so many a sign of life is wanted; 0 for never."""

    def tell(self, *assignments: str) -> None:
        """Send assignments, such as `READY=1`, as one message; what cannot be sent is lost."""

    def when_gone(self, what: Callable[[], None]) -> None:
        """Have the running loop do this once the manager has gone, where it can tell."""

    def close(self) -> None:
        """Tell nothing more."""

    def ready(self, status: str) -> None:
        """Say that the server listens."""
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun; :meth:`ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """Say that the server stops."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def watch(self, healthy: Callable[[], bool]) -> None:
        """Give signs of life from the running loop, at half the time, while `healthy` says so."""
        if not self.watchdog_seconds:
            return
        if healthy():
            self.tell("WATCHDOG=1")
        asyncio.get_running_loop().call_later(self.watchdog_seconds / 2, self.watch, healthy)


class _Heard(Manager):
    """One that listens on a socket."""

    def __init__(self, to: socket.socket, end: bytes, watchdog_seconds: float) -> None:
        self._to = to
        self._end = end
        self._failed = to.type == socket.SOCK_STREAM
        self.watchdog_seconds = watchdog_seconds
        to.setblocking(False)

    def tell(self, *assignments: str) -> None:
        """Send assignments; a failure is logged once. The end of a stream is told otherwise."""
        lines = (each.replace("\n", " ") for each in assignments)
        try:
            self._to.send("\n".join(lines).encode() + self._end)
        except OSError as error:
            if not self._failed:
                log.warning("the manager does not listen", error=str(error))
            self._failed = True

    def close(self) -> None:
        """Close the socket."""
        self.watchdog_seconds = 0.0
        self._to.close()

    def when_gone(self, what: Callable[[], None]) -> None:
        """A stream ends with the process at its other end; nothing ever comes on it."""
        if self._to.type != socket.SOCK_STREAM:
            return
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._to)
            what()

        loop.add_reader(self._to, gone)


def manager(environment: MutableMapping[str, str] = os.environ) -> Manager:
    """Whoever the environment names, taken out of it so that no child of ours speaks to them."""
    taken = [environment.pop(name, "") for name in (SUPERVISOR, "NOTIFY_SOCKET")]
    supervisor, path = taken
    seconds = _watchdog_seconds(environment)
    with contextlib.suppress(ValueError, OSError):  # of a process that was ours, but not of this
        if supervisor:
            parent = socket.socket(fileno=int(supervisor))
            parent.set_inheritable(False)
            return _Heard(parent, b"\0", seconds)
    if not path:
        return Manager()
    to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        to.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        to.close()
        log.warning("the manager does not listen", address=path, error=str(error))
        return Manager()
    return _Heard(to, b"", seconds)


def _watchdog_seconds(environment: MutableMapping[str, str]) -> float:
    """Of this process; 0 where no sign of life is wanted, or another process's."""
    wanted = environment.pop("WATCHDOG_USEC", "")
    process = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
    return int(wanted) / 1e6 if wanted.isdecimal() and process == str(os.getpid()) else 0.0
