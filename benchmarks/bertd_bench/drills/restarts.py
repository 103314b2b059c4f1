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
from pathlib import Path

from bertd_bench.drills.callers import LIBRARY, UNARY, Callers
from bertd_bench.drills.models import DrillModel
from bertd_bench.drills.process import Served, quick
from bertd_bench.drills.report import DrillReport
from bertd_bench.drills.timeline import ServedVersion, Timeline

_KINDS = (LIBRARY, LIBRARY, UNARY, UNARY)


def drill(  # noqa: PLR0913 - as the command has them
    model: DrillModel,
    how: signal.Signals,
    *,
    times: int,
    quiet_calls: int,
    folder: Path,
    delay_seconds: float = 0.5,
    wait_seconds: float = 1.5,
    flags: tuple[str, ...] = (),
    progress: Callable[[str], None],
) -> DrillReport:
    """Restart two servers in turns under load.

    Args:
        model: of both.
        how: SIGTERM or SIGKILL.
        times: how many restarts in all.
        quiet_calls: that are answered before the first, for comparison.
        folder: for logs and the cache, made here.
        delay_seconds: `--drain-delay-seconds`.
        wait_seconds: between a server that is ready and the end of the next: clients have to
            connect to it meanwhile.
        flags: further ones of `bertd serve`.
        progress: told now and then.

    Raises:
        BenchError: a server did not start, or did not end.
    """
    folder.mkdir()
    arguments = [
        *(str(model.bundle), "--drain-delay-seconds", str(delay_seconds)),
        *(*quick(folder / "cache"), *flags),
    ]
    servers = [Served(arguments, folder / f"serve-{number}.log") for number in range(2)]
    try:
        for server in servers:
            server.start()
        return asyncio.run(_run(servers, model, how, times, quiet_calls, wait_seconds, progress))
    finally:
        for server in servers:
            server.close()


async def _run(  # noqa: PLR0913, PLR0917 - as its caller has them
    servers: list[Served],
    model: DrillModel,
    how: signal.Signals,
    times: int,
    quiet_calls: int,
    wait_seconds: float,
    progress: Callable[[str], None],
) -> DrillReport:
    timeline = Timeline([ServedVersion(model, "1")])
    answered: list[int] = []
    first = time.monotonic()
    async with Callers([server.address for server in servers], timeline, _KINDS) as callers:
        await callers.answers(quiet_calls)
        began = time.monotonic()
        for number in range(1, times + 1):
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
    return DrillReport(how.name, times, callers.seen, first, began, ended, answered=answered)
