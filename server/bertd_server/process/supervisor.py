"""A small parent that restarts the server: `bertd serve --supervise`.

::

    signals ──> parent ──starts, signals──> bertd serve (the same command line)
                  ^  └── relays ──> systemd, if it is there
                  └── READY, STATUS, WATCHDOG on a socket; its end is the child's

    child ends:  0, or 2 (misused), or after a signal to stop ──> the parent ends with its code
                 1 (cannot start) before one was ready ─────────> likewise
                 else ──> again: at once, then after 1 s, 2 s, 4 s … 30 s
                          too many failures within the window ──> the parent ends with its code
    no sign of life within the watchdog's time ──> killed, which is a failure

`bertd serve` becomes this process once its settings are known to be right: `exec` frees all that
was loaded for that. So this module imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from bertd_server.config.settings import Settings

# Of bertd_server.system.exits. Another start would be misused likewise; and one that has never
# served is somebody's who waits for it, and can mend what it lacks.
_CANNOT_START, _MISUSED = 1, 2
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before a restart
_STOPS = (signal.SIGINT, signal.SIGTERM)
_PASSED_ON = (*_STOPS, signal.SIGHUP)


def take_over(settings: Settings) -> NoReturn:
    """Become the supervisor of this very command line.

    Raises:
        OSError: the system has no such call.
    """
    options = [
        settings.supervise_failures,
        settings.supervise_window_seconds,
        settings.watchdog_seconds,
    ]
    own = [sys.executable, "-P", "-m", "bertd_server.process.supervisor"]
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until it can pass them on
    os.execv(  # noqa: S606 - our own interpreter
        sys.executable, [*own, *map(str, options), sys.executable, *sys.orig_argv[1:]]
    )


class Failures:
    """Counts failures, and says how long to wait before the next start."""

    def __init__(self, most: int, window: float) -> None:
        """Give up at the `most`th failure within `window` seconds."""
        self._most = most
        self._window = window
        self._times: deque[float] = deque()

    def pause(self, now: float) -> float | None:
        """Count one at `now`; returns seconds to wait, None to give up."""
        self._times.append(now)
        while self._times[0] < now - self._window:
            self._times.popleft()
        count = len(self._times)
        if count >= self._most:
            return None
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (count - 2)) if count > 1 else 0.0


class Supervisor:
    """Runs a command again and again; use it on the main thread."""

    def __init__(self, command: Sequence[str], failures: Failures, watchdog_seconds: float) -> None:
        """Take a command, which is not started yet.

        Args:
            command: of the child.
            failures: counts those.
            watchdog_seconds: without a sign of life, once it was ready, after which a child is
                killed; 0 for never.
        """
        self._command = command
        self._failures = failures
        self._watchdog = watchdog_seconds
        self._stopped = False
        self._signals: deque[int] = deque()  # that the child has yet to have
        self._ready = self._served = False
        self._alive_at = 0.0
        self._manager = _manager()
        self._ping = _own_watchdog() / 2 if self._manager else 0.0
        self._pinged = -self._ping
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.setblocking(False)
        self._waker = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (*_PASSED_ON, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)

    def run(self) -> int:
        """Run the command until it is done, stopped or given up; returns the exit code."""
        while True:
            code = self._run_once()
            if self._stopped or code in {0, _MISUSED}:
                return code
            if code == _CANNOT_START and not self._served:
                return code
            pause = self._failures.pause(time.monotonic())
            if pause is None:
                _log("error", "gave up: the server failed too often", exit_code=code)
                return code
            _log("warning", "the server is restarted", exit_code=code, pause_seconds=pause)
            self._relay(b"STATUS=restarting")
            if self._is_stopped_within(pause):
                return 0  # nothing ran

    def _run_once(self) -> int:
        """Start the command and see it end; returns its code, as a shell would say it."""
        ours, its = socket.socketpair()
        environment = {**os.environ, "BERTD_SUPERVISOR": str(its.fileno())}
        if self._watchdog:
            environment["WATCHDOG_USEC"] = str(round(self._watchdog * 1e6))
        self._ready = False
        # Signals wait until it takes them; it would die of them while its interpreter starts.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        # In a group of its own, so that a terminal's Ctrl-C reaches it once, through us.
        child = subprocess.Popen(  # noqa: S603 - our own command line
            self._command, env=environment, pass_fds=[its.fileno()], process_group=0
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        its.close()
        with ours:
            self._attend(child, ours)
        code = child.wait()
        return code if code >= 0 else 128 - code

    def _attend(self, child: subprocess.Popen[bytes], ours: socket.socket) -> None:
        """Listen to the child until it ends; kill it if it gives no sign of life."""
        heard, listening = b"", True
        while child.poll() is None:
            self._pass_on(child)
            readable = self._select([ours] if listening else [], self._patience())
            if ours in readable:
                data = ours.recv(4096)
                listening = bool(data)
                *messages, heard = (heard + data).split(b"\0")
                for message in messages:
                    self._hear(message)
            if self._watchdog and self._ready and self._overdue() >= 0:
                _log("error", "no sign of life: the server is killed", seconds=self._watchdog)
                child.kill()  # a process that is stopped ends with nothing less
                child.wait()

    def _hear(self, message: bytes) -> None:
        """Note a sign of life, and tell systemd what is for it."""
        lines = message.split(b"\n")
        self._alive_at = time.monotonic()
        self._ready = self._ready or b"READY=1" in lines
        self._served = self._served or self._ready
        # The child's signs of life end here; and its end is not that of the service.
        if b"WATCHDOG=1" not in lines and (self._stopped or b"STOPPING=1" not in lines):
            self._relay(message)

    def _overdue(self) -> float:
        """Seconds since the child should have given a sign of life; negative before that."""
        return time.monotonic() - self._alive_at - self._watchdog

    def _patience(self) -> float | None:
        """Seconds to wait at most for the next message or signal."""
        waits = [self._ping] if self._ping else []
        if self._watchdog and self._ready:
            waits.append(max(0.0, -self._overdue()))
        return min(waits, default=None)

    def _is_stopped_within(self, seconds: float) -> bool:
        """Wait, unless a signal says stop; then True at once."""
        end = time.monotonic() + seconds
        while not self._stopped and (left := end - time.monotonic()) > 0:
            self._select([], min(left, self._ping or left))
        return self._stopped

    def _select(self, more: list[socket.socket], timeout: float | None) -> list[socket.socket]:
        """Wait for a signal or a message; gives systemd our own sign of life in between."""
        if self._ping and time.monotonic() >= self._pinged + self._ping:
            self._pinged = time.monotonic()
            self._relay(b"WATCHDOG=1")
        readable, _, _ = select.select([self._wake, *more], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        return readable

    def _on_signal(self, number: int, _: object) -> None:
        """Keep a signal for the child; SIGCHLD only wakes us."""
        if number != signal.SIGCHLD:
            self._stopped = self._stopped or number in _STOPS
            self._signals.append(number)

    def _pass_on(self, child: subprocess.Popen[bytes]) -> None:
        """Send the child what has come for it. One that is not ready has nothing to reload."""
        while self._signals:
            number = self._signals.popleft()
            if number != signal.SIGHUP or self._ready:
                child.send_signal(number)

    def _relay(self, message: bytes) -> None:
        if self._manager:
            with contextlib.suppress(OSError):  # it does not listen: nothing to do about it
                self._manager.send(message)


def _manager() -> socket.socket | None:
    """The socket to systemd; taken out of the environment, since the child speaks to us."""
    path = os.environ.pop("NOTIFY_SOCKET", "")
    if not path:
        return None
    to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        to.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError:
        to.close()
        return None
    return to


def _own_watchdog() -> float:
    """Seconds within which systemd wants a sign of life of us; 0 for never."""
    wanted = os.environ.pop("WATCHDOG_USEC", "")
    process = os.environ.pop("WATCHDOG_PID", "") or str(os.getpid())
    return int(wanted) / 1e6 if wanted.isdecimal() and process == str(os.getpid()) else 0.0


def _log(level: str, event: str, **facts: object) -> None:
    """A line as the server's own logs have them."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(json.dumps({**facts, "event": event, "level": level, "timestamp": now}) + "\n")
    sys.stderr.flush()


def main() -> None:
    """Supervise what the arguments say: failures, window, watchdog, then the command."""
    most, window, watchdog, *command = sys.argv[1:]
    failures = Failures(int(most), float(window))
    sys.exit(Supervisor(command, failures, float(watchdog)).run())


if __name__ == "__main__":
    main()
