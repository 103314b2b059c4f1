"""A contestant's server in a process of its own, stopped while others have their turn.

::

    here ──JSON in argv──> python -m bertd_bench.load.server_main   ──> {"port": …} on its output
                           python -m bertd_bench.load.infinity_main     (its own interpreter)

It ends when its input closes, or with this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertd_bench.compare.process import PeerError, environment
from bertd_bench.harness import cputime
from bertd_bench.load.infinity_main import NEEDS as INFINITY_NEEDS

START_SECONDS = 180.0

OURS = "bertd"
EAGER = "PyTorch eager"
INFINITY = "Infinity"
PLAIN = "plain gRPC"
_HANDLINGS = ("padded", "by length", "one by one")


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: as tables show it.
        kind: bertd's front end (`served`), a plain server (`plain`), or Infinity's (`http`).
        handling: of a batch by PyTorch eager; empty for bertd's own engine.
        what: in a few words.
    """

    name: str
    kind: str
    handling: str = ""
    what: str = ""


CONTESTANTS = (
    Contestant(OURS, "served", what="`bertd serve`"),
    *(
        Contestant(
            f"{EAGER}, {handling}",
            "served",
            handling,
            f"bertd's front end and scheduler around PyTorch eager, batches {handling}",
        )
        for handling in _HANDLINGS
    ),
    Contestant(INFINITY, "http", what="Infinity's HTTP server, PyTorch"),
    Contestant(PLAIN, "plain", what="grpc.aio, ONNX Runtime as PyTorch exports it, no batches"),
)


@dataclass(frozen=True, slots=True)
class ServerInputs:
    """What a server is given: folders, and its budget of threads."""

    checkpoint: str
    bundle: str
    threads: int
    scratch: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContestantServer:
    """A server that listens."""

    contestant: Contestant
    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        """On the loopback interface."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """Of its process and all below it."""
        return cputime.of_tree(self.process.pid)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Runs for as long as this lasts, and takes no time after it."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it."""
        self._signal(signal.SIGCONT)
        _end(self.process)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def start(
    contestant: Contestant, given: ServerInputs, interpreter: str = sys.executable
) -> ContestantServer:
    """Start a contestant, and stop it as soon as it listens.

    Raises:
        PeerError: it does not start.
    """
    module = "infinity_main" if contestant.kind == "http" else "server_main"
    told = {
        "kind": contestant.kind,
        "handling": contestant.handling,
        "checkpoint": given.checkpoint,
        "bundle": given.bundle,
        "threads": given.threads,
        "scratch": str(given.scratch),
        "settings": dict(given.settings),
    }
    path = given.scratch / f"{contestant.name.replace(' ', '-').replace(',', '')}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [interpreter, "-m", f"bertd_bench.load.{module}", json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,  # a line that waited in a buffer would be one that `select` does not see
            env=environment(given.scratch, own=contestant.kind != "http"),
            start_new_session=True,
        )
    try:
        running = ContestantServer(contestant, process, _port(process, path))
    except PeerError:
        _end(process)
        raise
    with running.awake():
        pass
    return running


def _port(process: subprocess.Popen[bytes], path: Path) -> int:
    """What it says; other lines of its output are somebody's remarks."""
    assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    end = time.monotonic() + START_SECONDS
    while select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        line = process.stdout.readline()
        if not line:
            said = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PeerError(f"its server ended: {said[-1] if said else 'it said nothing'}"[:300])
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return int(json.loads(line)["port"])
    raise PeerError(f"its server did not listen within {START_SECONDS:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def infinity_interpreter(pythons: Sequence[str], scratch: Path) -> str:
    """The first interpreter that has Infinity with its server.

    Raises:
        PeerError: none has; it says what is missing where least is.
    """
    code = (
        "import importlib.util as u, json, sys; "
        "print(json.dumps([n for n in sys.argv[1:] if u.find_spec(n) is None]))"
    )
    least: list[str] = list(INFINITY_NEEDS)
    for python in pythons:
        done = subprocess.run(  # noqa: S603 - an interpreter that the user named
            [python, "-c", code, *INFINITY_NEEDS],
            capture_output=True,
            check=False,
            env=environment(scratch, own=False),
            timeout=60,
        )
        try:
            missing = json.loads(done.stdout)
        except ValueError:
            continue
        if not missing:
            return python
        least = min(least, missing, key=len)
    raise PeerError(f"not installed: {', '.join(least)} (`pip install 'infinity-emb[server]'`)")
