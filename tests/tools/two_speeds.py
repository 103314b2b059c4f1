"""Whether a lone text has one speed in every process, and what changes it.

::

    .venv/bin/python tests/tools/two_speeds.py [--starts 3] [--tree CHECKOUT] [--realtime] BUNDLE

It starts `bertd serve`, with an empty cache, in turns as people start it, beside busy programs that
end as soon as it serves, and with one setting changed. Each server gets 300 calls of eight words,
with pauses of 2 ms. A row is a start: the median of a call and of the model's run, in ms, and how
many of a hundred runs had all threads; of the first hundred calls and of the last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.harness.texts import WORDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protos", "export", "server", "client", "benchmarks")
CALLS, PAUSE = 100, 0.002
BUSY = [sys.executable, "-c", "while True: pass"]
FACTORS: tuple[tuple[str, int, tuple[str, ...]], ...] = (  # busy programs, flags
    ("as it is", 0, ()),
    ("beside 4 busy programs", 4, ()),
    ("stock operators", 0, ("--kernels", "stock")),
    ("never on the loop", 0, ("--loop-run-seconds", "0")),
    ("threads sleep", 0, ("--profile", "efficient")),
)


@contextlib.contextmanager
def busy(programs: int) -> Iterator[None]:
    """Programs that want every core."""
    started = [subprocess.Popen(BUSY) for _ in range(programs)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


@contextlib.contextmanager
def serving(
    bundle: str, tree: Path, programs: int, flags: Sequence[str]
) -> Iterator[tuple[int, str, str]]:
    """A server's process, its address and that of its metrics."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "bertd_client.cli", "serve", bundle, "--threads", "2"]
        command += ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
        command += ["--log-format", "json", "--cache-folder", cache, *flags]
        path = os.pathsep.join(str(tree / package) for package in PACKAGES)
        with busy(programs):
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            lines = (json.loads(line) for line in process.stdout if line.startswith("{"))
            said = next((one for one in lines if one["event"] == "serving"), None)
        try:
            if said is None:
                raise SystemExit("no server")
            yield process.pid, said["address"], said["http"]
        finally:
            process.kill()
            process.wait()


def wide_batches(http: str) -> int:
    """Batches that ran on all threads so far."""
    with urllib.request.urlopen(f"http://{http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(float(x.split()[-1])) for x in lines if x.startswith("bertd_wide_batches_total"))


def hundred(stub: inference_pb2_grpc.InferenceServiceStub, http: str) -> str:
    """Make calls; the median of a call and of a run, in ms, and how many ran on all threads."""
    before, calls, runs = wide_batches(http), [], []
    for _ in range(CALLS):
        time.sleep(PAUSE)
        text = " ".join(random.choices(WORDS, k=8))
        begin = time.perf_counter()
        answer = stub.Embed(inference_pb2.EmbedRequest(texts=[text]))
        calls.append(1e3 * (time.perf_counter() - begin))
        runs.append(answer.results[0].timings.compute_ns / 1e6)
    wide = wide_batches(http) - before
    return f"{statistics.median(calls):.2f} | {statistics.median(runs):.2f} | {wide}"


def set_ahead(process: int, policy: int) -> None:
    """Have a process's threads, and this one, run before others', or as others do."""
    threads = [int(one.name) for one in Path(f"/proc/{process}/task").iterdir()]
    for thread in (0, *threads):
        os.sched_setscheduler(thread, policy, os.sched_param(int(policy != os.SCHED_OTHER)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle")
    parser.add_argument("--starts", type=int, default=3, help="of each kind")
    parser.add_argument("--tree", type=Path, default=ROOT, help="another checkout's server")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="calls go before all other programs, for a machine that is never quiet; as root",
    )
    parser.add_argument("--only", help="factors whose name has this")
    chosen = parser.parse_args()
    print("| | call | run | wide | call | run | wide |\n|---|---:|---:|---:|---:|---:|---:|")
    for _ in range(chosen.starts):
        for name, programs, flags in FACTORS:
            if chosen.only and chosen.only not in name:
                continue
            with serving(chosen.bundle, chosen.tree.resolve(), programs, flags) as where:
                process, address, http = where
                if chosen.realtime:
                    set_ahead(process, os.SCHED_RR)
                with grpc.insecure_channel(address) as channel:
                    stub = inference_pb2_grpc.InferenceServiceStub(channel)
                    first, _middle, last = (hundred(stub, http) for _ in range(3))
                if chosen.realtime:
                    set_ahead(process, os.SCHED_OTHER)
            print(f"| {name} | {first} | {last} |", flush=True)


if __name__ == "__main__":
    main()
