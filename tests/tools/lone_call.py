"""Where the time of a lone short call goes: ``python tests/tools/lone_call.py BUNDLE [OTHER]``.

::

    client ──wire in──> decode, check ──> tokenise ──> queue ──hand-over──> run ──back──> answer ──┐
       ^──────────────────────────────────── wire out ─────────────────────────────────────────────┘

First the CPU of servers, in turns: this checkout's, OTHER's if it is named, and a bare grpc.aio
that echoes bytes, without and with a hop to a thread: what no server in Python goes below. What is
left of a call's CPU without the engine's own is what counts here. Then the stations of this
checkout's server, in µs, each the median of the calls; what is noted costs some µs of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.harness import cputime
from bertd_bench.harness.texts import WORDS
from bertd_server.config.settings import Settings
from bertd_server.engine.engine import Engine
from bertd_server.models.model import Model
from bertd_server.process import runtime
from bertd_server.rpc.interceptors import decoding
from bertd_server.rpc.v1.inference import InferenceService
from bertd_server.scheduling.dispatcher import Dispatcher
from bertd_server.scheduling.pool import Pool
from bertd_server.scheduling.scheduler import Scheduler
from bertd_server.serving.server import Server

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protos", "export", "server", "client", "benchmarks")
STATIONS = (
    ("wire in", "called", "received"),
    ("decode, begin", "received", "asked"),
    ("check, reserve", "asked", "read"),
    ("tokenise", "read", "tokenised"),
    ("account", "tokenised", "submitted"),
    ("queue", "submitted", "dispatched"),  # and hand-over: where a lane computes
    ("hand-over", "dispatched", "run"),
    ("choose", "submitted", "run"),
    ("run", "run", "ran"),
    ("back", "ran", "ended"),
    ("answer", "ended", "answered"),
    ("wire out", "answered", "heard"),
    ("in all", "called", "heard"),
)
Marks = list[tuple[str, int]]


def noted(marks: Marks, kind: type, name: str, before: str, after: str = "") -> None:
    """Have a method note when it begins, and when it ends."""
    method = getattr(kind, name)

    def begins(*given: Any, **named: Any) -> Any:
        marks.append((before, time.perf_counter_ns()))
        try:
            return method(*given, **named)
        finally:
            if after:
                marks.append((after, time.perf_counter_ns()))

    async def waits(*given: Any, **named: Any) -> Any:
        marks.append((before, time.perf_counter_ns()))
        try:
            return await method(*given, **named)
        finally:
            if after:
                marks.append((after, time.perf_counter_ns()))

    setattr(kind, name, waits if asyncio.iscoroutinefunction(method) else begins)


def note(marks: Marks) -> None:
    """Note the stations of every call from now on; for a process that does nothing else."""
    noted(marks, InferenceService, "Embed", "asked", "answered")
    noted(marks, Model, "read", "read", "tokenised")
    noted(marks, Scheduler, "submit", "submitted")
    noted(marks, Pool, "run", "dispatched")
    noted(marks, Engine, "answer", "run", "ran")
    noted(marks, Dispatcher, "_hear", "ended")
    places: Any = decoding
    decoder = places._decoder

    def noting(*given: Any) -> Callable[[bytes], Any]:
        decode = decoder(*given)

        def decoded(data: bytes) -> Any:
            marks.append(("received", time.perf_counter_ns()))
            return decode(data)

        return decoded

    places._decoder = noting


async def until_line(port: int) -> None:
    """Say the port, and wait for a line on the standard input."""
    print(json.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}), flush=True)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(
        target=lambda: (sys.stdin.readline(), loop.call_soon_threadsafe(done.set)), daemon=True
    ).start()
    await done.wait()


async def serve_noting(folder: Path) -> None:
    """A server that says at its end when each call was where."""
    marks: Marks = []
    note(marks)
    server = Server(folder, Settings(address="127.0.0.1:0", http_address="off"))
    await until_line(await server.start())
    await server.drain()
    print(json.dumps(marks), flush=True)


async def serve_echo(*, hop: bool) -> None:
    """A bare server, whose answer is as long as a vector of 384; with a thread's help, or not."""
    answer, threads = bytes(1_600), ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()

    async def echo(_request: bytes, _context: Any) -> bytes:
        return await loop.run_in_executor(threads, lambda: answer) if hop else answer

    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("bertd.v1.InferenceService", {"Embed": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await until_line(port)
    await server.stop(None)


class Served:
    """A server in a process, and how to call it; stopped but in its turns."""

    def __init__(self, name: str, process: subprocess.Popen[str], address: str) -> None:
        self.name = name
        self.process = process
        channel = grpc.insecure_channel(address)
        if "echo" in name:
            path = "/bertd.v1.InferenceService/Embed"
            encode = inference_pb2.EmbedRequest.SerializeToString
            self.call: Any = channel.unary_unary(path, request_serializer=encode)
        else:
            self.call = inference_pb2_grpc.InferenceServiceStub(channel).Embed
        self.waits: list[int] = []
        self.spent: list[float] = []
        self.computed: list[int] = []

    def turn(self, calls: int, pause: float, text: Callable[[], str]) -> Marks:
        """Make calls with pauses; returns when each was made and answered, and counts the CPU."""
        self.process.send_signal(signal.SIGCONT)
        marks: Marks = []
        for number in range(-10, calls):
            if number == 0:
                began = cputime.of_process(self.process.pid)
            time.sleep(pause)
            request = inference_pb2.EmbedRequest(texts=[text()])
            called = time.perf_counter_ns()
            answer = self.call(request)
            heard = time.perf_counter_ns()
            if number < 0:
                continue
            marks += [("called", called), ("heard", heard)]
            self.waits.append(heard - called)
            if not isinstance(answer, bytes):
                self.computed.append(answer.results[0].timings.compute_ns)
        self.spent.append((cputime.of_process(self.process.pid) - began) / calls)
        self.process.send_signal(signal.SIGSTOP)
        return marks


@contextmanager
def serving(name: str, command: Sequence[str], tree: Path = ROOT) -> Iterator[Served]:
    """Start a server; commands are for this environment's Python."""
    paths = os.pathsep.join(str(tree / package) for package in PACKAGES)
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = (json.loads(line) for line in process.stdout if line.startswith("{"))
        address = next((one["address"] for one in lines if one["event"] == "serving"), None)
        if address is None:
            sys.exit(f"no server of {name}")
        yield Served(name, process, address)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def bertd(bundle: str, flags: Sequence[str] = ()) -> list[str]:
    """The command of a server as people start it."""
    return [
        *("-m", "bertd_client.cli", "serve", bundle, "--address", "127.0.0.1:0"),
        *("--http-address", "off", "--log-format", "json", *flags),
    ]


def compare(options: argparse.Namespace, text: Callable[[], str]) -> None:
    """Print the CPU and the wait of a call, of each server."""
    this = str(Path(__file__).resolve())
    with ExitStack() as ends:
        command = bertd(options.bundle, options.flags)
        wanted = [("this", command, ROOT)]
        if options.other:
            wanted.append(("other", command, Path(options.other).resolve()))
        wanted += [("echo", [this, "--echo"], ROOT), ("echo, thread", [this, "--echo-hop"], ROOT)]
        servers = [ends.enter_context(serving(*each)) for each in wanted]
        time.sleep(options.settle)
        for each in servers:
            each.process.send_signal(signal.SIGSTOP)
        for _ in range(options.rounds):
            for each in random.sample(servers, len(servers)):
                each.turn(options.calls, options.pause, text)
    print(f"{'':14}{'CPU, least':>12}{'median':>9}{'without run':>13}{'p50':>9}   in us a call")
    for each in servers:
        spent = [1e6 * one for one in each.spent]
        run = min(each.computed, default=0) / 1e3
        print(
            f"{each.name:14}{min(spent):12.0f}{statistics.median(spent):9.0f}"
            f"{min(spent) - run:13.0f}{statistics.median(each.waits) / 1e3:9.0f}"
        )


def stations(options: argparse.Namespace, text: Callable[[], str]) -> None:
    """Print how long a call is at each station of this checkout's server."""
    command = [str(Path(__file__).resolve()), "--stations", options.bundle]
    with serving("this", command) as server:
        time.sleep(options.settle)
        marks = server.turn(options.calls * options.rounds, options.pause, text)
        server.process.send_signal(signal.SIGCONT)
        out, _ = server.process.communicate("\n")
    found = next(json.loads(line) for line in out.splitlines() if line.startswith("[["))
    rows: dict[str, list[float]] = {name: [] for name, _, _ in STATIONS}
    for (_, called), (_, heard) in zip(marks[::2], marks[1::2], strict=True):
        at = {name: when for name, when in found if called <= when <= heard}
        at |= {"called": called, "heard": heard}
        for name, begin, end in STATIONS:
            if begin in at and end in at:
                rows[name].append((at[end] - at[begin]) / 1e3)
    for name, spent in rows.items():
        if spent:
            tenths = statistics.quantiles(spent, n=10)
            print(f"{name:14} {statistics.median(spent):7.0f} us, {tenths[-1]:7.0f} at p90")


def wake_up(turns: int = 2_000) -> float:
    """µs from one thread's wish to another's turn, the median: what the machine takes for it."""
    asked, answered = threading.Semaphore(0), threading.Semaphore(0)
    waits: list[int] = []

    def partner() -> None:
        for _ in range(turns):
            asked.acquire()
            waits[-1] = time.perf_counter_ns() - waits[-1]
            answered.release()

    threading.Thread(target=partner, daemon=True).start()
    for _ in range(turns):
        time.sleep(0.0005)
        waits.append(time.perf_counter_ns())
        asked.release()
        answered.acquire()
    return statistics.median(waits) / 1e3


def main() -> None:
    """Serve for one of these measurements, or make them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("other", nargs="?", help="another checkout, to compare with")
    parser.add_argument("--words", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=100, help="of a turn")
    parser.add_argument("--pause", type=float, default=0.002, help="seconds before each call")
    parser.add_argument("--settle", type=float, default=20, help="seconds to calibrate in")
    for mode in ("stations", "echo", "echo-hop"):
        parser.add_argument(f"--{mode}", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--flags", nargs="+", default=[], help="of the servers, without their --")
    options = parser.parse_args()
    options.flags = [f"--{each}" for each in options.flags]
    if options.stations:
        runtime.run(serve_noting(Path(options.bundle)))
        return
    if options.echo or options.echo_hop:
        runtime.run(serve_echo(hop=options.echo_hop))
        return
    draw = random.Random()

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=options.words))

    compare(options, text)
    print(f"\nanother thread's turn comes after {wake_up():.0f} us\n")
    stations(options, text)


if __name__ == "__main__":
    main()
