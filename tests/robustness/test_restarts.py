"""Two servers restarted in turns under load: no call of the retrying client may fail.

::

    Callers ──round robin, health checks, retries──> server 0   signal, exit, start, ready, wait
                                                └──> server 1   then this one, and so on

With SIGTERM a server says NOT_SERVING and answers for `--drain-delay-seconds`, so that nobody has
to retry. With SIGKILL it is gone between two bytes, and everybody in flight has to.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.patience import PATIENCE
from helpers.restartable import RestartableServer, quick
from robustness.callers import LIBRARY, UNARY, Callers
from robustness.scale import LARGE, patient
from robustness.timeline import KnownModel, ServedVersion, Timeline, known

DELAY_SECONDS, WAIT_SECONDS = (0.5, 1.5) if LARGE else (0.3, 1.0)
POLL_SECONDS = 0.05
BEFORE = 1_000 if LARGE else 10  # calls answered before the first restart


@patient
@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_servers_are_restarted_under_load(
    tiny_bundle: Path, how: signal.Signals, tmp_path: Path
) -> None:
    """One of two is always there; the client's calls find it."""
    model = known("A", tiny_bundle)
    times = 100 if LARGE else 1
    arguments = [str(tiny_bundle), "--drain-delay-seconds", str(DELAY_SECONDS)]
    arguments += [*quick(tmp_path / "cache"), "--threads", "1", "--lanes", "1"]
    servers = [RestartableServer(arguments, tmp_path / f"{number}.log") for number in range(2)]
    try:
        for server in servers:
            server.start()
        codes, answered = asyncio.run(restart(servers, model, how, times))
    finally:
        for server in servers:
            server.close()
    assert codes == {0 if how is signal.SIGTERM else -how}
    assert all(answered)
    assert len(answered) == (times if how is signal.SIGTERM else 0)


async def restart(
    servers: Sequence[RestartableServer], model: KnownModel, how: signal.Signals, times: int
) -> tuple[set[int], list[int]]:
    """Exit codes, and the texts that each run of a server has answered, where it could say so."""
    codes: set[int] = set()
    answered: list[int] = []
    addresses = [server.address for server in servers]
    timeline = Timeline([ServedVersion(model, "1")])
    async with Callers(addresses, timeline, (LIBRARY, LIBRARY, UNARY, UNARY)) as callers:
        await callers.answers(BEFORE)
        # Both had to be reached by now: a call goes to each in turn.
        reached = [server.connections() for server in servers]
        for number in range(1, times + 1):
            server = servers[number % len(servers)]
            codes.add(await asyncio.to_thread(server.end, how))
            stopped = [one for one in server.events() if one.get("event") == "stopped"]
            answered += [one["answered"] for one in stopped]
            await asyncio.to_thread(server.start)
            end = time.monotonic() + PATIENCE
            while server.connections() < reached[number % len(servers)]:
                assert time.monotonic() < end
                await asyncio.sleep(POLL_SECONDS)
            await asyncio.sleep(WAIT_SECONDS)  # health is asked for once a client is connected
    assert callers.wrong == []
    return codes, answered
