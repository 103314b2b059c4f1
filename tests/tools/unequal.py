"""Load reports with unequal servers: ``python tests/tools/unequal.py BUNDLE [SECONDS]``.

::

    calls at random times ──bertd_client's channel, weighted or not──┬─> bertd serve, one lane
                                                                     └─> bertd serve, two lanes

Both servers are real, and so are their reports; a text takes 100 ms of a lane, which sleeps: so the
lanes do not share this machine's cores, and it can be busy. Of rates that grow, the highest is
sought at which 99 of 100 calls are answered within a second, both policies in turns, with the same
times of arrival. Prints a table of Markdown.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client.connection.channel import target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.restartable import RestartableServer

TEXT_SECONDS, OBJECTIVE = 0.1, 1.0  # of a lane; of 99 calls in 100
RATES = range(12, 30, 3)  # texts a second; both servers together can do 30
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


def main() -> None:
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
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
            server = RestartableServer([sys.argv[1], *flags], log, before=SLOW)
            stack.callback(server.close)
            server.start()
            servers.append(server.address)
        print("| texts/s | p99 round robin, s | p99 weighted, s |")
        print("|---:|---:|---:|", flush=True)
        for rate in RATES:
            tails = [
                asyncio.run(tail(servers, weighted=weighted, rate=rate, seconds=seconds))
                for weighted in (False, True)
            ]
            print(f"| {rate} | {tails[0]:.2f} | {tails[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
