"""A contestant in a process of its own, driven over a pipe; stopped while others have their turn.

::

    here  ──commands──>  python -m bertd_bench.contestants.worker   (any interpreter)
          <──samples───  + its children, in one process group

A pool of threads that spins while it waits would take a core from whoever is measured next, so the
whole group gets SIGSTOP when its turn ends and SIGCONT when the next begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import bertd
import numpy as np
from numpy.typing import NDArray

import bertd_bench
from bertd_bench.contestants.handling import AS_GIVEN
from bertd_bench.contestants.peer import Peer
from bertd_bench.harness import cputime

ANSWER_SECONDS = 900.0  # of one command: a compiled model compiles in it


class PeerError(RuntimeError):
    """A contestant cannot be had, failed, or computes something else; the message says which."""


def environment(scratch: Path, *, own: bool) -> dict[str, str]:
    """Variables of a contestant's process: bertd's keeps this one's path.

    Others have a folder from which bertd_bench can be imported, with the contracts, alone.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTD_")}
    if own:
        return kept
    folder = scratch / "importable"
    folder.mkdir(exist_ok=True)
    for package in (bertd_bench, bertd):  # what is imported of the second needs no library
        assert package.__file__ is not None  # noqa: S101 - for mypy: both are regular packages
        home = Path(package.__file__).resolve().parent
        link = folder / home.name
        if not link.exists():
            link.symlink_to(home)
    return {**kept, "PYTHONPATH": str(folder)}


class PeerProcess:
    """One contestant; a :class:`~bertd_bench.harness.system.SystemUnderTest`.

    Args:
        peer: which.
        interpreter: that has what it needs.
        threads: its budget; it is kept to so many cores.
        scratch: for its log.

    Raises:
        PeerError: it does not start.
    """

    def __init__(self, peer: Peer, interpreter: str, threads: int, scratch: Path) -> None:
        self.peer = peer
        self.threads = threads
        self.handling: dict[int, str] = {}
        self._log = scratch / f"{peer.name.replace(' ', '-').replace(',', '')}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [interpreter, "-m", "bertd_bench.contestants.worker", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(scratch, own=peer.own),
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        """As tables show it."""
        return self.peer.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def answers(self, index: int, handling: str = AS_GIVEN) -> list[NDArray[np.float32]]:
        """What it says of each text of a sample."""
        rows = self.ask("answers", index=index, handling=handling)["rows"]
        return [np.array(values, np.float32).reshape(shape) for shape, values in rows]

    def choose(self, index: int, calls: int) -> dict[str, float]:
        """Find and keep its fastest way to handle a sample; gives milliseconds of each tried."""
        tried: dict[str, float] = self.ask("choose", index=index, calls=calls)["milliseconds"]
        self.handling[index] = min(tried, key=tried.__getitem__)
        return tried

    def turn(self, index: int, repeats: int) -> list[int]:
        """See :class:`~bertd_bench.harness.system.SystemUnderTest`."""
        handling = self.handling.get(index, AS_GIVEN)
        answer = self.ask("turn", index=index, repeats=repeats, handling=handling)
        samples: list[int] = answer["samples"]
        return samples

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Of its process and all below it."""
        return cputime.of_tree(self._process.pid)

    def wake(self) -> None:
        """Let its group run."""
        self._signal(signal.SIGCONT)

    def rest(self) -> None:
        """Stop its group."""
        self._signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Awake for as long as this lasts."""
        self.wake()
        try:
            yield
        finally:
            self.rest()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command of :mod:`bertd_bench.contestants.worker`, and wait for its answer.

        Raises:
            PeerError: it failed, ended, or took too long.
        """
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None  # noqa: S101 - for mypy: both are pipes
        assert pipe_out is not None  # noqa: S101 - the same
        try:
            pipe_in.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            pipe_in.flush()
        except OSError as error:
            raise PeerError(self._ended()) from error
        if not select.select([pipe_out], [], [], ANSWER_SECONDS)[0]:
            raise PeerError(f"did not answer within {ANSWER_SECONDS:.0f} s")
        line = pipe_out.readline()
        if not line:
            raise PeerError(self._ended())
        answer: dict[str, Any] = json.loads(line)
        if reason := answer.get("unavailable") or answer.get("error"):
            raise PeerError(" ".join(str(reason).split())[:300])
        return answer

    def close(self) -> None:
        """End it and its children."""
        self.wake()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _ended(self) -> str:
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended: {said[-1] if said else 'it said nothing'}"[:300]


def probe(interpreter: str, scratch: Path, *, own: bool) -> Mapping[str, Any]:
    """What an interpreter lacks for each peer, and its versions.

    Raises:
        PeerError: it does not run.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [interpreter, "-m", "bertd_bench.contestants.worker", "--probe"],
            capture_output=True,
            check=True,
            env=environment(scratch, own=own),
            timeout=120,
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        raise PeerError(f"{interpreter} cannot run peers: {said.decode()[-300:]}") from error
    return found
