"""What Ray's proxy costs, and what fails as replicas go: ``tests/tools/ray_serve.py BUNDLE``.

Needs Ray: `make clusters`. Lone calls of one short text go to `bertd serve` and through the proxy
in turns; then eight callers without retries go on while a replica is killed, and while the
application is deployed anew, with two replicas.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from helpers.ray_served import channel_to, ray_served
from helpers.serve_process import serving

CALLS, TURNS, CALLERS, SECONDS = 400, 8, 8, 20.0
REQUEST = inference_pb2.EmbedRequest(texts=["a short text of some eight words to embed"])


def main() -> None:
    """Measure, and print."""
    bundle = Path(sys.argv[1]).resolve()
    arguments = {"bundle": str(bundle), "num_cpus": 1}
    with (
        ray_served(arguments) as ray,
        serving(bundle, "--lanes=1", "--threads=1") as (process, address),
        channel_to(address) as direct,
        channel_to(ray.address) as proxied,
    ):
        pids = [*ray.tell(replicas=True), *ray.tell(proxies=True)]
        compare(direct, [process.pid], proxied, pids)
        ray.tell(deploy={**arguments, "min_replicas": 2})
        with under_load(ray.address, "two replicas, one killed, and later another"):
            for _ in range(2):
                time.sleep(SECONDS / 4)
                os.kill(ray.tell(replicas=True)[0], signal.SIGKILL)
                time.sleep(SECONDS / 4)
        with under_load(ray.address, "two replicas, deployed anew"):
            ray.tell(deploy={**arguments, "min_replicas": 2, "max_texts_per_call": 255})
            time.sleep(SECONDS / 4)


def compare(direct: grpc.Channel, server: list[int], proxied: grpc.Channel, ray: list[int]) -> None:
    """Time lone calls in turns, and the CPU of the processes that answer them."""
    ways = {"bertd serve": (direct, server), "behind Ray's proxy": (proxied, ray)}
    took: dict[str, list[float]] = {name: [] for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for _ in range(TURNS):
        for name, (channel, pids) in ways.items():
            stub, used = inference_pb2_grpc.InferenceServiceStub(channel), cpu_ms(pids)
            for _ in range(CALLS // TURNS):
                begin = time.perf_counter()
                stub.Embed(REQUEST)
                took[name].append(1000 * (time.perf_counter() - begin))
            cpu[name] += cpu_ms(pids) - used
    for name, times in took.items():
        cuts = statistics.quantiles(times, n=100)
        print(
            f"{name}: ms min {min(times):.2f}, median {cuts[49]:.2f}, p99 {cuts[98]:.2f}; "
            f"CPU {cpu[name] / CALLS:.2f} ms a call"
        )


def cpu_ms(pids: list[int]) -> float:
    """CPU time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return 1000 * ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def under_load(address: str, what: str) -> Iterator[None]:
    """Call without retries meanwhile, and print how the calls ended."""
    ends, slowest, stop = Counter[str](), [0.0], threading.Event()

    def call() -> None:
        with channel_to(address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            while not stop.is_set():
                begin = time.perf_counter()
                ends[ended(lambda: stub.Embed(REQUEST, timeout=30))] += 1
                slowest[0] = max(slowest[0], time.perf_counter() - begin)

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    begin = time.perf_counter()
    try:
        yield
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    rate = ends.total() / (time.perf_counter() - begin)
    print(f"{what}: {dict(ends)}, {rate:.0f} calls a second, slowest {slowest[0]:.2f} s")


def ended(ask: Callable[[], Any]) -> str:
    """The status of a call; of one that failed with the beginning of its message."""
    try:
        ask()
    except grpc.RpcError as error:
        failed: Any = error
        return f"{failed.code().name}: {failed.details()[:60]}"
    return "OK"


if __name__ == "__main__":
    main()
