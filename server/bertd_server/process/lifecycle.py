"""The lifecycle of the process: what begins its end, what its manager hears, how it exits.

::

    SIGTERM, SIGINT, supervisor gone while it loads ──> the process ends: nothing to finish
    SIGTERM, SIGINT ──> stop ────┐                         ┌──> exit code
    supervisor gone ──> stop ────┼──> ending ──> (drain) ──┤
    watchdog: trouble > restart ─┘                         └──> RESTART
    SIGHUP ──> reload ──> goes on

:func:`bertd_server.process.app.serve` composes it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable

from bertd.command import STOPS

from bertd_server.process.systemd import Manager, manager
from bertd_server.process.watchdog import Trouble
from bertd_server.system.exits import Exit
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

_ECHO_SECONDS = 0.1


class Stops:
    """Which signals to stop count: `timeout` sends one to the process and once more to its group.

    So the same signal within a tenth of a second of the last one is that one still.
    """

    def __init__(self) -> None:
        """None has come."""
        self._last: dict[int, float] = {}

    def counts(self, number: int, now: float) -> bool:
        """Whether a signal that came at `now`, in seconds, is one of its own."""
        before, self._last[number] = self._last.get(number), now
        return before is None or now - before > _ECHO_SECONDS


class Lifecycle:
    """One run of the server; construct it on its event loop.

    Attributes:
        ending: set once the server shall drain and end.
    """

    def __init__(self, told: Manager | None = None) -> None:
        """Begin; SIGINT and SIGTERM end the process until :meth:`takes_calls`.

        Then the process is this one's until :meth:`over`. SIGHUP waits for :meth:`ready`.

        Args:
            told: hears of it; by default whoever the environment names.
        """
        self.ending = asyncio.Event()
        self._manager = told or manager()
        self._restart = False
        self._reload: Callable[[], Awaitable[object]] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._again = False
        self._status = ""
        self._manager.when_gone(self._orphaned)
        self._taking = False
        self._undo: list[Callable[[], None]] = []
        self._stops = Stops()
        self._on_loop(lambda number: self._end_early(signal.Signals(number).name))
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])

    def if_ended_early(self, undo: Callable[[], None]) -> None:
        """Have this done first where the process ends before it :meth:`takes_calls`."""
        self._undo.append(undo)

    def takes_calls(self) -> None:
        """There are calls to finish from now on: SIGINT and SIGTERM set `ending`."""
        self._taking = True
        self._on_loop(lambda _: self.ending.set())

    def ready(
        self, status: str, healthy: Callable[[], bool], reload: Callable[[], Awaitable[object]]
    ) -> None:
        """The server listens.

        Args:
            status: in a few words.
            healthy: whether it can answer; signs of life stop while it cannot.
            reload: what SIGHUP does.
        """
        self._status = status
        self._manager.ready(status)
        self._manager.watch(lambda: self.ending.is_set() or healthy())
        self._reload = reload
        if self._again:
            self._on_hangup()

    def trouble(self, found: Trouble) -> None:
        """End, in order to be restarted: what was found does not heal."""
        log.error(found.what, **found.facts, action="the server drains and ends to be restarted")
        self._restart = True
        self.ending.set()

    @staticmethod
    def hung(seconds: float) -> None:
        """End at once, in order to be restarted: a loop that does not turn drains nothing."""
        log.error(
            "the event loop is stuck",
            stood_seconds=round(seconds, 3),
            action="the server ends to be restarted",
        )
        os._exit(Exit.RESTART)

    def drains(self, second: Callable[[int], None]) -> None:
        """The drain begins; another signal does `second`, with its number."""
        self._on_loop(second)
        self._manager.stopping("draining")

    def exit(self, drained: Exit) -> Exit:
        """The exit code after a drain."""
        return Exit.RESTART if self._restart else drained

    def over(self) -> None:
        """The loop ends: a signal ends the process where it is."""
        self._on_signals(_end_now)

    def _orphaned(self) -> None:
        log.error("the supervisor is gone", action="the server drains and ends")
        self.ending.set()
        if not self._taking:
            self._end_early("")

    def _end_early(self, why: str) -> None:
        """End the process, which loads: minutes may pass until it could drain nothing."""
        self._on_signals(_end_now)  # somebody may ask twice
        log.info("ended while it started", signal=why or None)
        for undo in self._undo:
            undo()
        os._exit(Exit.FINISHED)

    def _on_loop(self, what: Callable[[int], None]) -> None:
        """On a signal to stop do this, with its number, on the running loop."""
        loop = asyncio.get_running_loop()
        self._on_signals(lambda number: loop.call_soon_threadsafe(what, number))

    def _on_signals(self, what: Callable[[int], object]) -> None:
        def hear(number: int, _: object) -> None:
            if self._stops.counts(number, time.monotonic()):
                what(number)

        # Not the loop's own handlers: it takes them away as it closes, before the process has ended
        for number in STOPS:
            signal.signal(number, hear)
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # a supervisor holds them back so far

    def _on_hangup(self) -> None:
        """Reload; a signal that comes before that is possible, or meanwhile, has its turn later."""
        self._again = True
        idle = self._reloading is None or self._reloading.done()
        if self._reload is not None and idle and not self.ending.is_set():
            self._reloading = asyncio.create_task(self._reload_all(self._reload))

    async def _reload_all(self, reload: Callable[[], Awaitable[object]]) -> None:
        while self._again:
            self._again = False
            self._manager.reloading()
            await reload()
            self._manager.ready(self._status)


def _end_now(number: int) -> None:
    os._exit(128 + number)  # as a shell reports a process that a signal has ended
