"""What callers notice of servers that end, hang or are busy behind the balancers of deploy/.

::

    .venv/bin/python tests/tools/balancers.py [--balancers envoy,nginx] [--trials kill=20]

    stock grpcio client, no retries ──8 calls at a time──> balancer ──> 2 or 3 x bertd serve, tiny

Each trial runs one trouble under load and counts calls, those that failed by status, the slowest
one, and how many each server answered (its model's name says which). Prints a table of Markdown.

- restart: SIGTERM of one after the other, each started again; `--drain-delay` before the drain
- kill: SIGKILL of one; started again after two seconds
- stop: SIGSTOP of one for five seconds
- overload: 64 callers more at one server for five seconds, which the balancer sees nothing of
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_bench.contestants.hosted import free_port

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.balanced import BALANCERS, Balancer, balancing
from helpers.restartable import RestartableServer

CALLERS, MORE_CALLERS, PAUSE = 8, 64, 0.005  # seconds between a caller's calls
CALL_SECONDS = 30.0  # a call's deadline
SETTLE, DOWN, HANGS, BUSY = 1.0, 2.0, 5.0, 5.0  # seconds
NO_RETRIES = [("grpc.enable_retries", 0)]


@dataclass(slots=True)
class Seen:
    """What callers saw.

    Attributes:
        failed: calls by status and the beginning of its details.
        shares: calls answered by each server.
        slowest: seconds of the slowest call.
    """

    failed: Counter[str] = field(default_factory=Counter)
    shares: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, other: Seen) -> None:
        """Count what was seen in another trial too."""
        self.failed += other.failed
        self.shares += other.shares
        self.slowest = max(self.slowest, other.slowest)


class Fleet:
    """Servers of one bundle, the first of which gets into trouble.

    Attributes:
        servers: each in a process of its own.
        ports: of gRPC and of HTTP, of each.
    """

    def __init__(self, bundle: Path, count: int, folder: Path, drain_delay: float) -> None:
        """Start them, and wait until all answer."""
        self.servers: list[RestartableServer] = []
        self.ports: list[tuple[int, int]] = []
        for number in range(count):
            http = free_port()
            server = RestartableServer(
                [
                    *(str(bundle), "--name", f"server-{number + 1}"),
                    *("--http-address", f"127.0.0.1:{http}", "--cache-folder", str(folder)),
                    *("--warmup-seconds", "0", "--calibration-seconds", "0.1"),
                    *("--drain-delay-seconds", str(drain_delay), "--drain-seconds", "10"),
                    *("--lanes", "1", "--threads", "1"),
                ],
                folder / f"server-{number + 1}.log",
            )
            self.servers.append(server)
            self.ports.append((int(server.address.rpartition(":")[2]), http))
        try:
            for server in self.servers:
                server.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kill those that run."""
        for server in self.servers:
            server.close()


async def caller(address: str, seen: Seen, ends: asyncio.Event, name: str) -> None:
    """Ask one text after the other, each another, until the end."""
    async with grpc.aio.insecure_channel(address, options=NO_RETRIES) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        number = 0
        while not ends.is_set():
            number += 1
            began = time.monotonic()
            request = inference_pb2.EmbedRequest(texts=[f"the cat sat on mat {name} {number}"])
            try:
                answer = await stub.Embed(request, timeout=CALL_SECONDS)
                seen.shares[answer.model] += 1
            except grpc.aio.AioRpcError as error:
                seen.failed[f"{error.code().name}: {(error.details() or '')[:200]}"] += 1
            seen.slowest = max(seen.slowest, time.monotonic() - began)
            await asyncio.sleep(PAUSE)


async def restart(fleet: Fleet) -> None:
    """SIGTERM, and a new one, of each server."""
    for server in fleet.servers:
        await asyncio.to_thread(server.end, signal.SIGTERM)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(DOWN)


async def kill(fleet: Fleet) -> None:
    """SIGKILL of one, and a new one."""
    await asyncio.to_thread(fleet.servers[0].end, signal.SIGKILL)
    await asyncio.sleep(DOWN)
    await asyncio.to_thread(fleet.servers[0].start)
    await asyncio.sleep(DOWN)


async def stop(fleet: Fleet) -> None:
    """SIGSTOP of one for some seconds."""
    os.kill(fleet.servers[0].pid, signal.SIGSTOP)
    await asyncio.sleep(HANGS)
    os.kill(fleet.servers[0].pid, signal.SIGCONT)
    await asyncio.sleep(DOWN)


async def overload(fleet: Fleet) -> None:
    """Callers that go to one server past the balancer."""
    ends, others = asyncio.Event(), Seen()
    async with asyncio.TaskGroup() as group:
        for number in range(MORE_CALLERS):
            group.create_task(caller(fleet.servers[0].address, others, ends, f"more {number}"))
        await asyncio.sleep(BUSY)
        ends.set()


TROUBLES: dict[str, Callable[[Fleet], Awaitable[None]]] = {
    one.__name__: one for one in (restart, kill, stop, overload)
}


async def trial(fleet: Fleet, address: str, trouble: Callable[[Fleet], Awaitable[None]]) -> Seen:
    """One trouble under load."""
    seen, ends = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(caller(address, seen, ends, str(number)))
        await asyncio.sleep(SETTLE)
        await trouble(fleet)
        await asyncio.sleep(SETTLE)
        ends.set()
    return seen


def row(balancer: str, trouble: str, trials: int, seen: Seen) -> str:
    """A row of the table."""
    answered = seen.shares.total()
    failed = "<br>".join(f"{count} {what}" for what, count in seen.failed.most_common(4))
    shares = ", ".join(f"{seen.shares[one] / answered:.0%}" for one in sorted(seen.shares))
    return (
        f"| {balancer} | {trouble} | {trials} | {answered + seen.failed.total():,} | "
        f"{failed or 0} | {seen.slowest:.2f} | {shares} |"
    )


def measure(balancer: Balancer, fleet: Fleet, folder: Path, trials: dict[str, int]) -> None:
    """Print a row for each trouble."""
    for trouble, count in trials.items():
        seen = Seen()
        for number in range(count):
            place = folder / f"{balancer.name}-{trouble}-{number}"
            place.mkdir()
            with balancing(balancer, fleet.ports, place) as address:
                time.sleep(SETTLE)  # health checks have found all servers
                seen.add(asyncio.run(trial(fleet, address, TROUBLES[trouble])))
            print(number + 1, row(balancer.name, trouble, number + 1, seen), file=sys.stderr)
        print(row(balancer.name, trouble, count, seen), flush=True)


def tiny_bundle(folder: Path) -> Path:
    """A small random model, exported."""
    from bertd_export.bundle import export_model
    from helpers.tiny import save_tiny

    save_tiny(folder / "source", "bert", "feature-extraction")
    export_model(str(folder / "source"), folder / "bundle", name="tiny")
    return folder / "bundle"


def counts(text: str) -> dict[str, int]:
    """Trials by trouble, from restart=20,kill=20."""
    given = dict(one.split("=") for one in text.split(","))
    return {trouble: int(count) for trouble, count in given.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, help="of an embedding model; without it a tiny one")
    parser.add_argument("--balancers", default=",".join(BALANCERS))
    parser.add_argument("--trials", type=counts, default=dict.fromkeys(TROUBLES, 3))
    parser.add_argument("--servers", type=int, choices=(2, 3), default=2)
    parser.add_argument("--drain-delay", type=float, default=2.0, help="seconds")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="balancers-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        fleet = Fleet(given.bundle or tiny_bundle(folder), given.servers, folder, given.drain_delay)
        stack.callback(fleet.close)
        print("| balancer | trouble | trials | calls | failed | slowest, s | share of each |")
        print("|---|---|---:|---:|---|---:|---|")
        for name in given.balancers.split(","):
            if BALANCERS[name].program is None:
                print(f"{name} is not installed", file=sys.stderr)
                continue
            measure(BALANCERS[name], fleet, folder, given.trials)


if __name__ == "__main__":
    main()
