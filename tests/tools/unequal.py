"""Load reports with unequal servers: ``python tests/tools/unequal.py [BUNDLE [SECONDS]]``.

::

    calls at random times ──bertd_client's channel, weighted or not──┬─> bertd serve, one lane
                                                                     └─> bertd serve, two lanes

The highest rate is sought at which 99 of 100 calls are answered within a second; a text takes
100 ms of a lane. Without BUNDLE in virtual time: arrivals and lanes are simulated, the reports are
made by the server's own functions, and the weights as gRPC makes them (gRFC A58). With it two real
servers are asked by our client's channel, both policies in turns, with the same times of arrival;
their lanes sleep, so that they do not share this machine's cores, but calls still need some: use a
quiet machine. Prints a table of Markdown.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client.connection.channel import target
from bertd_server.rpc.load_reports import Rate, utilisation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.restartable import RestartableServer

TEXT_SECONDS, OBJECTIVE = 0.1, 1.0  # of a lane; of 99 calls in 100
RATES = range(12, 30)  # texts a second; both servers together can do 30
UPDATES, MOST_WAIT, SIMULATED = 1.0, 10.0, 1200.0  # seconds
LEARNS = 6.0  # seconds of calls that do not count: reports are known then
SLOW = (
    "import time\n"
    "from bertd_server.engine import engine\n"
    "from bertd_server.process import app\n"
    "answer, load = engine.Engine.answer, app.Server.load\n"
    "def slow(self, sequences, *given, **named):\n"
    f"    time.sleep({TEXT_SECONDS} * len(sequences))\n"
    "    return answer(self, sequences, *given, **named)\n"
    "async def slowed(server):\n"
    "    await load(server)\n"
    "    engine.Engine.answer = slow\n"
    "app.Server.load = slowed\n"
)


@dataclass(slots=True)
class SimulatedServer:
    """Lanes that take the texts in the order in which they come.

    Attributes:
        free: when each lane is, a heap.
        report: calls a second and utilisation, as of the last answer.
    """

    free: list[float]
    report: tuple[float, float] | None = None
    _calls: Rate = field(default_factory=Rate)
    _compute: Rate = field(default_factory=Rate)

    def began(self, now: float) -> float:
        """Take a text; when it will be answered."""
        self._calls.add(1, now)
        ends = max(now, heapq.heappop(self.free)) + TEXT_SECONDS
        heapq.heappush(self.free, ends)
        return ends

    def ended(self, now: float) -> None:
        """Report with an answer."""
        self._compute.add(TEXT_SECONDS, now)
        wait, lanes = max(0.0, self.free[0] - now), len(self.free)
        used = utilisation(self._compute.at(now), lanes, wait, MOST_WAIT)
        self.report = self._calls.at(now), used


def simulated_tail(*, weighted: bool, rate: float, seconds: float = SIMULATED) -> float:
    """The 99th percentile of the time of calls to one and two lanes, in seconds."""
    arrivals = random.Random(1)
    servers = [SimulatedServer([0.0] * lanes) for lanes in (1, 2)]
    weights, due = [1.0, 1.0], [0.0, 0.0]  # due: the turn of each, the sooner the heavier it is
    ends, times = list[tuple[float, int, int]](), list[float]()
    now, update = 0.0, UPDATES
    while now < seconds:
        now += arrivals.expovariate(rate)
        while ends and ends[0][0] <= now:
            ended, _, place = heapq.heappop(ends)
            servers[place].ended(ended)
        if weighted and now >= update:
            found = [server.report for server in servers]
            weights = [one[0] / one[1] for one in found if one] if all(found) else weights
            update = now + UPDATES
        place = due.index(min(due))
        due[place] += 1 / weights[place]
        answered = servers[place].began(now)
        heapq.heappush(ends, (answered, len(times), place))
        times.append(answered - now)
    return sorted(times)[int(len(times) * 0.99)]


async def tail(addresses: list[str], *, weighted: bool, rate: float, seconds: float) -> float:
    """The 99th percentile of the time of calls, in seconds; infinite where more than that fail."""
    where, options = target(addresses, weighted=weighted)
    times, arrivals = list[float](), random.Random(1)
    async with grpc.aio.insecure_channel(where, options=options) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def call(number: int, *, counts: bool) -> None:
            began = time.monotonic()
            try:
                request = inference_pb2.EmbedRequest(texts=[f"cat {number} {rate} {weighted}"])
                await stub.Embed(request, timeout=20)
                took = time.monotonic() - began
            except grpc.aio.AioRpcError:
                took = float("inf")
            if counts:
                times.append(took)

        async with asyncio.TaskGroup() as group:
            due, end, number = time.monotonic(), LEARNS + seconds, 0
            began = due
            while due < began + end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(call(number, counts=due > began + LEARNS))
                due, number = due + arrivals.expovariate(rate), number + 1
    return sorted(times)[int(len(times) * 0.99)]


def served_tails(bundle: str, seconds: float, rates: Sequence[float]) -> None:
    """Print a row for each rate, of real servers."""
    folder = Path(tempfile.mkdtemp(prefix="unequal-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = list[str]()
        for lanes in (1, 2):
            flags = ["--lanes", str(lanes), "--threads", "1", "--load-reports", "on"]
            flags += ["--warmup-seconds", "0", "--calibration-seconds", "0.1"]
            flags += ["--http-address", "off", "--cache-folder", str(folder / "cache")]
            flags += ["--max-batch-sequences", "1"]
            log = folder / f"{lanes}.log"
            server = RestartableServer([bundle, *flags], log, before=SLOW)
            stack.callback(server.close)
            server.start()
            servers.append(server.address)
        for rate in rates:
            show(
                rate,
                *(
                    asyncio.run(tail(servers, weighted=weighted, rate=rate, seconds=seconds))
                    for weighted in (False, True)
                ),
            )


def show(rate: float, plain: float, weighted: float) -> None:
    """Print a row."""
    print(f"| {rate} | {plain:.2f} | {weighted:.2f} |", flush=True)


def main() -> None:
    print("| texts/s | p99 round robin, s | p99 weighted, s |")
    print("|---:|---:|---:|", flush=True)
    if len(sys.argv) > 1:
        served_tails(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 30.0, RATES[::3])
        return
    for rate in RATES:
        show(rate, *(simulated_tail(weighted=weighted, rate=rate) for weighted in (False, True)))


if __name__ == "__main__":
    main()
