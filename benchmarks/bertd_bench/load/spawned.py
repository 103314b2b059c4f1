"""A server in a process of its own, which can be stopped while others have their turn.

::

    here ──name of a coroutine, its arguments──> process: cores and threads limited, then imported
      ^ <──────── port, and at its end whatever it returns ──────────┘  ends when told, or with us

Nothing that computes is imported before the limits of threads: libraries read them then.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from bertd_bench.contestants.worker import limit_threads
from bertd_bench.harness import cputime

ANYWHERE = "127.0.0.1:0"
_START_SECONDS = 180.0
_END_SECONDS = 20.0

FunctionTimes = list[tuple[str, int, str, int, float, float]]
"""Of a profile, for each function: file, line, name, calls, own seconds, seconds with callees."""


class SpawnError(RuntimeError):
    """A server did not start."""


@dataclass(frozen=True, slots=True, eq=False)
class SpawnedServer:
    """A server process that listens."""

    process: SpawnProcess
    connection: Connection
    port: int

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid or 0

    @property
    def address(self) -> str:
        """On the loopback interface."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """That it has used so far."""
        return cputime.of_process(self.pid)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Runs for as long as this lasts, and takes no time after it."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> FunctionTimes:
        """End it; gives its profile, empty unless it was asked for."""
        self._signal(signal.SIGCONT)
        times: FunctionTimes = []
        with contextlib.suppress(OSError, EOFError):
            self.connection.send(None)
            if self.connection.poll(_END_SECONDS):
                times = self.connection.recv()
        self.connection.close()
        self.process.terminate()
        self.process.join()
        return times

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)


def spawn(
    target: str, *arguments: Any, threads: int | None = None, profile: bool = False
) -> SpawnedServer:
    """Start a server.

    Args:
        target: `module:coroutine`; called with a :class:`Starter` and the arguments.
        arguments: that can be pickled.
        threads: cores that it is kept to; None for all.
        profile: whether its event loop's thread is profiled.

    Raises:
        SpawnError: it does not listen in time, or ends before.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_main, args=(theirs, target, arguments, threads, profile), daemon=True
    )
    process.start()
    theirs.close()
    said = f"its server did not listen within {_START_SECONDS:.0f} s"
    with contextlib.suppress(EOFError):
        if ours.poll(_START_SECONDS):
            return SpawnedServer(process, ours, int(ours.recv()))
    if not process.is_alive():
        said = "its server ended before it listened: see its output above"
    process.terminate()
    process.join()
    raise SpawnError(said)


@dataclass(frozen=True, slots=True)
class Starter:
    """A server's end of the pipe."""

    connection: Connection

    async def serve(self, port: int) -> None:
        """Say where it listens, and return once it is told to end."""
        from bertd_server.process.app import settle  # noqa: PLC0415 - after the limits of threads

        settle()
        self.connection.send(port)
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.connection.fileno(), told.set)
        await told.wait()
        loop.remove_reader(self.connection.fileno())


def _main(
    connection: Connection,
    target: str,
    arguments: tuple[Any, ...],
    threads: int | None,
    profile: bool,
) -> None:
    """What the process does: serve until told to end."""
    if threads is not None:
        limit_threads(threads)
    from bertd_server.process import process  # noqa: PLC0415 - after the limits of threads
    from bertd_server.system import logs  # noqa: PLC0415 - the same

    logs.configure("console", "warning")
    module, _, name = target.partition(":")
    main = getattr(import_module(module), name)(Starter(connection), *arguments)
    profiler = cProfile.Profile()
    if profile:
        profiler.runcall(process.run, main)
    else:
        process.run(main)
    connection.send(_times(profiler) if profile else [])


def _times(profiler: cProfile.Profile) -> FunctionTimes:
    profiler.create_stats()
    stats: dict[tuple[str, int, str], Any] = profiler.stats
    return [
        (file, line, name, calls, own, cumulative)
        for (file, line, name), (_, calls, own, cumulative, _) in stats.items()
    ]
