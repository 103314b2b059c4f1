"""A server of the comparison: started, asked first, stopped out of turn, ended; all its processes.

::

    Popen (its cores, an empty cache) ──until one text is answered──> cold start
       └─ children, sessions of their own: SIGSTOP and SIGCONT reach each of them
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bertd_bench.compare.process import PeerError, environment
from bertd_bench.contestants.worker import thread_variables
from bertd_bench.harness import cputime
from bertd_bench.load.servers import OURS, ServerInputs, ServerKind

_START_SECONDS = 900.0  # of the slowest on a busy machine
_END_SECONDS = 20.0
_LINES = 8  # of its log, in an error


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A server that runs.

    Attributes:
        kind: which.
        process: that was started; others are below it.
        address: where it listens.
        log: its output.
        born: when it was started, by the monotonic clock.
    """

    kind: ServerKind
    process: subprocess.Popen[bytes]
    address: str
    log: Path
    born: float

    def wait_for(self, failure: Callable[[], str]) -> float:
        """Return once there is no failure to answer a text; seconds since it was started.

        Raises:
            PeerError: it ended, or took too long.
        """
        why = ""
        while time.monotonic() < self.born + _START_SECONDS:
            if self.process.poll() is not None:
                raise PeerError(f"it ended before it answered: {self._said()}")
            why = failure()
            if not why:
                return time.monotonic() - self.born
            time.sleep(0.02)
        raise PeerError(f"it did not answer within {_START_SECONDS:.0f} s: {why}; {self._said()}")

    def cpu_seconds(self) -> float:
        """That its processes have used so far."""
        return cputime.of_tree(self.process.pid)

    def memory_bytes(self) -> int:
        """Of its processes now, each shared page counted once."""
        total = 0
        for each in self._tree():
            with contextlib.suppress(psutil.Error):
                seen = each.memory_full_info()
                total += getattr(seen, "pss", 0) or seen.rss
        return total

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Runs for as long as this lasts, and takes no time after it."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End all its processes, those too whose parent has gone."""
        every = [*self._tree(), *self._session()]
        self._signal(signal.SIGCONT)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        for each in every:
            with contextlib.suppress(psutil.Error):
                each.kill()
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _session(self) -> list[psutil.Process]:
        """Those of its session, wherever they are in the tree of processes."""
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.getsid(each.pid) == self.process.pid:
                    found.append(each)
        return found

    def _signal(self, number: signal.Signals) -> None:
        for each in self._tree():
            with contextlib.suppress(psutil.Error):
                each.send_signal(number)

    def _said(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(lines[-_LINES:])[-600:] or "it said nothing"


def start(kind: ServerKind, given: ServerInputs) -> Served:
    """Start a server, with nothing in its cache and on its cores alone."""
    kept = environment(given.scratch, own=kind.name.startswith(OURS))
    variables = {
        **kept,
        **thread_variables(given.threads),
        "XDG_CACHE_HOME": str(given.scratch),
        **kind.variables(given),
    }
    log = given.scratch / "server.log"
    born = time.monotonic()
    with log.open("wb") as sink, _kept_to(given.threads):
        process = subprocess.Popen(  # noqa: S603 - commands of our own table
            kind.command(given),
            stdout=sink,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            cwd=given.scratch,
            env=variables,
            start_new_session=True,
        )
    return Served(kind, process, f"127.0.0.1:{given.port}", log, born)


@contextlib.contextmanager
def _kept_to(threads: int) -> Iterator[None]:
    """So many cores for what this thread starts meanwhile, where a process may choose."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)
