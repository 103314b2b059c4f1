"""Is this tree as fast as another? ``python tests/tools/against.py OTHER [ROUNDS]``.

Servers of both trees, in this environment, answer the same calls in turns; while one has its turn
the other is stopped. OTHER is a checkout, such as ``git worktree add ../before v0.1.0`` makes. The
factor is the other's time over this one's: above 1 this tree is faster.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bertd_bench.harness import rounds
from bertd_bench.harness.intervals import ratio_interval
from bertd_bench.harness.system import timed
from bertd_bench.harness.texts import MIXED_LENGTHS, WORDS
from bertd_client import Client

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protos", "export", "server", "client", "benchmarks")
CALLERS = 16


@dataclass
class Tree:
    """A server of one tree, stopped but in its turns; a system of the harness for each case."""

    name: str
    process: subprocess.Popen[str]
    client: Client
    call: Callable[[Client], object] = print
    threads: int = os.cpu_count() or 1

    def wake(self) -> None:
        """Let it run."""
        self.process.send_signal(signal.SIGCONT)

    def rest(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGSTOP)

    def turn(self, _: int, repeats: int) -> list[int]:
        """Time calls, in ns each."""
        return timed(lambda: self.call(self.client), repeats)

    def cpu_seconds(self) -> float:
        """Not looked at."""
        return 0.0


@contextmanager
def serving(name: str, tree: Path) -> Iterator[Tree]:
    """A server of the default model; its settings are the defaults."""
    paths = os.pathsep.join(str(tree / package) for package in PACKAGES)
    command = [sys.executable, "-m", "bertd_client.cli", "serve", "--address", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--http-address", "off", "--log-format", "json"],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        events = (json.loads(line) for line in process.stderr if line.startswith("{"))
        address = next((one["address"] for one in events if one["event"] == "serving"), None)
        if address is None:
            sys.exit(f"no server of {tree}: run `make serve` there once")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        with Client(address) as client:
            yield Tree(name, process, client)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait()


def cases(callers: ThreadPoolExecutor) -> dict[str, Callable[[Client], object]]:
    """What is asked: texts that are new each time, so that none is answered twice."""
    draw = random.Random()

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words - 2))

    def crowd(client: Client) -> None:
        list(callers.map(lambda n: client.embed([text(n)]), MIXED_LENGTHS * 4))

    return {
        "1 text, 8 words": lambda client: client.embed([text(8)]),
        "1 text, 128 words": lambda client: client.embed([text(128)]),
        "16 texts of mixed lengths": lambda client: client.embed(list(map(text, MIXED_LENGTHS))),
        f"{CALLERS} callers at once, mixed": crowd,
    }


def main(other: str, count: str = "20") -> None:
    """Print a line for each case."""
    with ThreadPoolExecutor(CALLERS) as callers, ExitStack() as servers:
        trees = [
            servers.enter_context(serving(name, tree))
            for name, tree in (("this", ROOT), ("other", Path(other).resolve()))
        ]
        for tree in trees:
            tree.rest()
        schedule = rounds.Schedule(int(count), repeats=20, steady_seconds=3, turn_seconds=0.4)
        for case, call in cases(callers).items():
            for tree in trees:
                tree.call = call
            this, that = rounds.run(trees, 0, schedule, random.Random(0))
            factor = ratio_interval(that.rounds_ns, this.rounds_ns)
            print(
                f"{case:28} {this.median_ms:8.2f} ms, other {that.median_ms:8.2f} ms: "
                f"{that.median_ms / this.median_ms:.3f}x"
                + (f" ({factor.low:.2f} to {factor.high:.2f})" if factor else "")
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
