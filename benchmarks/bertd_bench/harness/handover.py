"""How far apart two cores are: the time of a cache line from one to the other and back.

::

    this process, on the first core    write 1 · · · · · read 1, write 2 · · ·
    its partner, on the second core    · · · read 1, write 1 · · · read 2, · ·

A guest's cores are the host's to place. When it moves one beyond the cache that both shared, every
wait of two threads for each other takes longer, though each core is as fast as before: a run of
int8 on two threads took 1.6 times as long, and no stolen time or load told of it. The time of a
turn is mostly the interpreter's; it is compared with others of its own, never quoted as latency.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress

TURNS = 1500  # about a third of a millisecond, or two thirds far apart
_PATIENCE = 5_000_000  # readings of a partner for a writer that has died: a quarter of a second
_ASKED, _ANSWERED = 0, 128  # bytes of the shared page: no cache line, nor its neighbour, is shared


def _appears(shared: memoryview, place: int, wanted: int) -> bool:
    """Read a byte until it is what is wanted; false if it never is."""
    for _ in range(_PATIENCE):  # noqa: SIM110 - any() would add a generator to each reading
        if shared[place] == wanted:
            return True
    return False


def echo(descriptor: int, core: int) -> None:
    """The partner: for each line of its input, answer :data:`TURNS` turns on this core."""
    os.sched_setaffinity(0, {core})
    sys.stdout.write("\n")
    sys.stdout.flush()
    with mmap.mmap(descriptor, mmap.PAGESIZE) as page, memoryview(page) as shared:
        for _ in sys.stdin:
            for turn in range(1, TURNS + 1):
                wanted = turn & 255
                if not _appears(shared, _ASKED, wanted):
                    break
                shared[_ANSWERED] = wanted


class Handover:
    """A partner on the second of some cores; it sleeps but while it is asked."""

    def __init__(self, cores: Sequence[int]) -> None:
        """Start it.

        Args:
            cores: logical cores that this process may use, two at least.
        """
        self._first, second = cores[:2]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._file.truncate(mmap.PAGESIZE)
        descriptor = self._file.fileno()
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        call = f"from {__name__} import echo; echo({descriptor}, {second})"
        self._partner = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", call],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
            start_new_session=True,  # an interrupt of the terminal is ours to handle
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        if self._partner.stdout is not None:
            self._partner.stdout.readline()  # it has started, or ended

    def time(self) -> int | None:
        """Nanoseconds of a turn on average; None if the partner has ended, or does not answer."""
        if self._partner.stdin is None or self._partner.poll() is not None:
            return None
        allowed = os.sched_getaffinity(0)
        with memoryview(self._page) as shared:
            shared[_ASKED] = shared[_ANSWERED] = 0
            os.sched_setaffinity(0, {self._first})
            try:
                self._partner.stdin.write(b"\n")
                self._partner.stdin.flush()
                begin = 0
                for turn in range(1, TURNS + 1):
                    wanted = turn & 255
                    shared[_ASKED] = wanted
                    if not _appears(shared, _ANSWERED, wanted):
                        return None
                    if turn == 1:  # the partner is awake
                        begin = time.perf_counter_ns()
                return (time.perf_counter_ns() - begin) // (TURNS - 1)
            except OSError:
                return None
            finally:
                os.sched_setaffinity(0, allowed)

    def close(self) -> None:
        """End the partner."""
        with suppress(OSError):  # it may have ended before it read all
            if self._partner.stdin is not None:
                self._partner.stdin.close()
        if self._partner.stdout is not None:
            self._partner.stdout.close()
        try:
            self._partner.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._partner.kill()
            self._partner.wait()
        self._page.close()
        self._file.close()


def of(cores: Sequence[int]) -> Handover | None:
    """A partner where there are two cores and a process may choose its own; else None."""
    return Handover(cores) if len(cores) > 1 and hasattr(os, "sched_setaffinity") else None
