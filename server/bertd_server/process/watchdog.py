"""Looks for what does not heal by itself: a batch that never ends, memory beyond its limit.

::

    event loop, every few seconds ──> each model: how long has its oldest batch run?
                                 └──> the process: how much memory is resident, while no large
                                        │          call has some of it?
                                        │ too long, or too much twice in a row
                                        v
                              trouble(what, facts), once: the server ends to be restarted

A lone text runs on the loop itself, so a thread looks whether that still turns: if not, nothing can
be drained, and the process ends. From outside it is seen too: :mod:`bertd_server.process.systemd`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bertd_server.models import memory
from bertd_server.scheduling.deduplication import Batch
from bertd_server.system.setting_types import format_bytes

_TIMES = 10.0  # a batch may take this many times as long as was predicted
_MARGIN = 1.1  # of the memory limit: the allocator keeps what was freed, and measuring is late
_LONGEST_PAUSE = 5.0  # seconds between two looks
_LOOKS = 4  # within the time after which a batch is stuck
_SUSPENDED = 3.0  # pauses that pass between two looks where the process did not run


class WatchedModel(Protocol):
    """What the watchdog needs of a model."""

    def running(self) -> Iterable[Batch]:
        """The batches that run, with their starts on the monotonic clock."""


class WatchedRequests(Protocol):
    """What the watchdog needs of a :class:`bertd_server.scheduling.memory_budget.MemoryBudget`."""

    @property
    def busy(self) -> bool:
        """Whether a large call has memory."""

    def pause(self, *, paused: bool) -> None:
        """Let new large calls wait, or go on."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was found, and facts for the log."""

    what: str
    facts: dict[str, str | float]


class Watchdog:
    """Looks again and again. Use it on one event loop."""

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        models: Callable[[], Iterable[WatchedModel]],
        *,
        seconds: float,
        memory_limit: int,
        requests: WatchedRequests | None = None,
        clock: Callable[[], float] = time.monotonic,
        resident: Callable[[], int] | None = None,
    ) -> None:
        """Watch models and this process.

        Args:
            models: all that are loaded, asked anew at each look.
            seconds: after which a batch is stuck, if that is more than ten times what was
                predicted; 0 for never.
            memory_limit: bytes; 0 for none.
            requests: memory of requests in flight, which is not what does not heal.
            clock: the models' own.
            resident: bytes of memory in use.
        """
        self._models = models
        self._seconds = seconds
        self._limit = memory_limit * _MARGIN
        self._requests = requests
        self._clock = clock
        self._resident = resident or resident_bytes(self._limit)
        self._pause = min(_LONGEST_PAUSE, seconds / _LOOKS if seconds else _LONGEST_PAUSE)
        self._last = self._awake = clock()
        self._over = self._stopped = False

    def start(self, trouble: Callable[[Trouble], None], hung: Callable[[float], None]) -> None:
        """Look from now on; what is found first is told, and ends the watchdog.

        Args:
            trouble: told of what a drain may end.
            hung: told, on another thread, for how many seconds the event loop has not turned.
        """
        if self._seconds:
            outside = threading.Thread(
                target=self._look_at_loop, args=(hung,), name="bertd-watchdog", daemon=True
            )
            outside.start()
        self._wait(trouble)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True

    def _wait(self, trouble: Callable[[Trouble], None]) -> None:
        if self._seconds or self._limit:
            asyncio.get_running_loop().call_later(self._pause, self._turn, trouble)

    def look(self) -> Trouble | None:
        """What is wrong now, if anything."""
        now = self._clock()
        if now - self._last > _SUSPENDED * self._pause:
            self._awake = now  # this process stood still, and so did its batches
        self._last = now
        return self._stuck(now) or self._breach()

    def _turn(self, trouble: Callable[[Trouble], None]) -> None:
        if self._stopped:
            return
        found = self.look()
        if found:
            self.stop()
            trouble(found)
        else:
            self._wait(trouble)

    def _look_at_loop(self, hung: Callable[[float], None]) -> None:
        """What the thread does: the loop has looked last at the time that it has noted."""
        looked = awake = self._clock()
        while not self._stopped:
            time.sleep(self._pause)
            now = self._clock()
            if now - looked > _SUSPENDED * self._pause:
                awake = now
            looked = now
            stood = now - max(self._last, awake)
            if stood > self._seconds + self._pause and not self._stopped:
                hung(stood)
                return

    def _stuck(self, now: float) -> Trouble | None:
        if not self._seconds:
            return None
        for model in self._models():
            for batch in model.running():
                ran = now - max(batch.started, self._awake)
                if ran > max(self._seconds, _TIMES * batch.seconds):
                    return Trouble(
                        "a lane is stuck",
                        {
                            "ran_seconds": round(ran, 3),
                            "predicted_seconds": round(batch.seconds, 3),
                            "sequences": batch.shape.sequences,
                            "tokens": batch.shape.tokens,
                        },
                    )
        return None

    def _breach(self) -> Trouble | None:
        """Memory beyond its limit, at this look and the one before, and no large call has any.

        While one has, new ones wait: what it gives back may be all that is too much.
        """
        if not self._limit:
            return None
        resident = self._resident()
        high, busy = resident > self._limit, False
        if self._requests is not None:
            busy = self._requests.busy
            self._requests.pause(paused=high)
        over, self._over = self._over, high and not busy
        if not (over and self._over):
            return None
        return Trouble(
            "memory beyond its limit",
            {
                "resident": format_bytes(resident),
                "limit": format_bytes(self._limit / _MARGIN),
                "remedy": "raise --memory-limit, or lower --lanes or --cache-bytes",
            },
        )


def resident_bytes(suspicious: float) -> Callable[[], int]:
    """Measures this process's memory, closely only where a quick look finds it suspicious.

    The quick look counts pages twice that are mapped twice, so it never says too little.
    """

    def measured() -> int:
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        except OSError:  # only Linux has it
            return memory.resident_bytes()
        quick = pages * os.sysconf("SC_PAGE_SIZE")
        return quick if quick <= suspicious else memory.resident_bytes()

    return measured
