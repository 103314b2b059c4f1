"""Two servers restarted in turns under load: no call of the retrying client may fail.

::

    Callers ──round robin, health checks, retries──> server 0   SIGTERM, exit, start, ready, wait
                                                └──> server 1   then this one, and so on

With SIGTERM a server says NOT_SERVING and answers for `--drain-delay-seconds`, so that nobody has
to retry. With SIGKILL it is gone between two bytes, and everybody in flight has to.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertd_bench.drills.callers import LIBRARY, UNARY, Callers, Seen
from bertd_bench.drills.models import Kind
from bertd_bench.drills.process import Served, quick
from bertd_bench.drills.timeline import Timeline, Turn

_KINDS = (LIBRARY, LIBRARY, UNARY, UNARY)


@dataclass(slots=True)
class Restarted:
    """What was seen.

    Attributes:
        how: the signal.
        restarts: that were made.
        seen: by the callers.
        answered: texts of each run of a server that could say so at its end.
        first: when calls began.
        began: when restarts began, after a quiet time.
        ended: when the last had been made.
    """

    how: signal.Signals
    restarts: int
    seen: Seen
    answered: list[int]
    first: float
    began: float
    ended: float

    def latency(self, share: float) -> tuple[float, float]:
        """A quantile in milliseconds: before the restarts, and during them."""
        return (
            self.seen.milliseconds(share, self.first, self.began),
            self.seen.milliseconds(share, self.began, self.ended),
        )

    @property
    def wrong(self) -> list[str]:
        """What should not have happened."""
        idle = sum(not texts for texts in self.answered)
        return [*self.seen.wrong, *([f"{idle} servers ended without one answer"] if idle else [])]


def drill(  # noqa: PLR0913 - as the command has them
    kind: Kind,
    how: signal.Signals,
    *,
    restarts: int,
    quiet_calls: int,
    delay_seconds: float,
    wait_seconds: float,
    folder: Path,
    flags: tuple[str, ...] = (),
    progress: Callable[[str], None],
) -> Restarted:
    """Restart two servers in turns under load.

    Args:
        kind: the model of both.
        how: SIGTERM or SIGKILL.
        restarts: how many in all.
        quiet_calls: that are answered before the first, for comparison.
        delay_seconds: `--drain-delay-seconds`.
        wait_seconds: between a server that is ready and the end of the next: clients have to
            connect to it meanwhile.
        folder: for logs and the cache, made here.
        flags: further ones of `bertd serve`.
        progress: told now and then.

    Raises:
        BenchError: a server did not start, or did not end.
    """
    folder.mkdir()
    arguments = [
        *(str(kind.bundle), "--drain-delay-seconds", str(delay_seconds)),
        *(*quick(folder / "cache"), *flags),
    ]
    servers = [Served(arguments, folder / f"serve-{number}.log") for number in range(2)]
    try:
        for server in servers:
            server.start()
        return asyncio.run(_run(servers, kind, how, restarts, quiet_calls, wait_seconds, progress))
    finally:
        for server in servers:
            server.close()


async def _run(  # noqa: PLR0913, PLR0917 - as its caller has them
    servers: list[Served],
    kind: Kind,
    how: signal.Signals,
    restarts: int,
    quiet_calls: int,
    wait_seconds: float,
    progress: Callable[[str], None],
) -> Restarted:
    timeline = Timeline([Turn(kind, "1")])
    answered: list[int] = []
    first = time.monotonic()
    async with Callers([server.address for server in servers], timeline, _KINDS) as callers:
        await callers.answers(quiet_calls)
        began = time.monotonic()
        for number in range(1, restarts + 1):
            server = servers[number % len(servers)]
            code = await asyncio.to_thread(server.end, how)
            if code != (0 if how is signal.SIGTERM else -how):
                callers.seen.wrong.append(f"a server ended with {code}")
            answered += [
                one["answered"] for one in server.events() if one.get("event") == "stopped"
            ]
            await asyncio.to_thread(server.start)
            await asyncio.sleep(wait_seconds)
            if number % 10 == 0:
                progress(
                    f"{how.name}: {number} restarts, {callers.seen.answered.total()} answers, "
                    f"{len(callers.seen.wrong)} wrong"
                )
        ended = time.monotonic()
    return Restarted(how, restarts, callers.seen, answered, first, began, ended)
