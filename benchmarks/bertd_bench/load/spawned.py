"""A server in a process of its own, which can be stopped while others have their turn.

::

    here ──name of a coroutine, its arguments──> process: cores and threads limited, then imported
      ^ <──────── port ──────────────────────────────────────────────┘  ends when told, or with us

Nothing that computes is imported before the limits of threads: libraries read them then.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from bertd_bench.compare.process import PeerError
from bertd_bench.contestants.worker import limit_threads
from bertd_bench.harness import cputime

ANYWHERE = "127.0.0.1:0"
_START_SECONDS = 180.0
_END_SECONDS = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class SpawnedServer:
    """A server process that listens."""

    process: SpawnProcess
    connection: Connection
    port: int

    @property
    def address(self) -> str:
        """On the loopback interface."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """That it has used so far."""
        return cputime.of_process(self.process.pid or 0)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Runs for as long as this lasts, and takes no time after it."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError, EOFError):
            self.connection.send(None)
            self.process.join(_END_SECONDS)
        self.connection.close()
        self.process.terminate()
        self.process.join()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.process.pid or 0, number)


def spawn(target: str, *arguments: Any, threads: int | None = None) -> SpawnedServer:
    """Start a server.

    Args:
        target: `module:coroutine`; called with a :class:`Starter` and the arguments.
        arguments: that can be pickled.
        threads: cores that it is kept to; None for all.

    Raises:
        PeerError: it does not listen in time, or ends before.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, target, arguments, threads), daemon=True)
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
    raise PeerError(said)


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
    connection: Connection, target: str, arguments: tuple[Any, ...], threads: int | None
) -> None:
    """What the process does: serve until told to end."""
    if threads is not None:
        limit_threads(threads)
    from bertd_server.process import runtime  # noqa: PLC0415 - after the limits of threads
    from bertd_server.system import logs  # noqa: PLC0415 - the same

    logs.configure("console", "warning")
    module, _, name = target.partition(":")
    runtime.run(getattr(import_module(module), name)(Starter(connection), *arguments))
