"""A drill: a server, a neighbour that asks short things, and callers that ask the worst.

::

    idle ──> alone ──> eight at once ──> memory comes back ──> eight again, and SIGTERM
      └── p99, longest ──> ratios            within 30 s             └── seconds, exit code
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bertd_export.bundle import export_model
from helpers.restartable import RestartableServer
from helpers.served import OF_TASK
from helpers.tiny import save_tiny
from robustness.worst_calls import MODELS, POSITIONS, WorstCall

NEIGHBOUR, VECTORS = "neighbour", "vectors"
CALLERS = 8
DRAIN_SECONDS = 2.0
RECOVERY_SECONDS = 30.0
# What a drill must show; times as ratios to the same neighbour beside an idle server.
MOST_P99, MOST_LONGEST = 5.0, 10.0
MOST_GROWTH = 1.05
MOST_REFUSAL_SECONDS = 0.1
MOST_END_SECONDS = DRAIN_SECONDS + 2
ENDS = {0, 3, 4}  # finished; calls were cancelled; a batch still ran
_PERCENT = 0.99
_MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1_536,
    "initializer_range": 0.02,
}


@dataclass(frozen=True, slots=True)
class Waits:
    """A neighbour's calls: p99 and the longest, in seconds, and how many."""

    p99: float
    longest: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Of at least one call."""
        ordered = sorted(seconds)
        return cls(ordered[int(_PERCENT * (len(ordered) - 1))], ordered[-1], len(ordered))


@dataclass(slots=True)
class Result:
    """What a drill of one row showed.

    Attributes:
        row: its name.
        outcomes: codes of the calls that it made alone, and how many each.
        refusal: seconds of the slowest refusal of a call alone; 0 if none was refused.
        answer_bytes: of the largest answer.
        alone: of the neighbour, beside one caller.
        eight: beside eight.
        before: resident bytes before.
        peak: at most, meanwhile.
        after: once calls had ended, at the best moment of the time that memory has to come back.
        back_seconds: until it was back; infinite if it was not.
        end_seconds: from SIGTERM to the end; 0 if that was not tried.
        end_code: of the process.
    """

    row: str
    outcomes: dict[str, int] = field(default_factory=dict)
    refusal: float = 0.0
    answer_bytes: int = 0
    alone: Waits | None = None
    eight: Waits | None = None
    before: int = 0
    peak: int = 0
    after: int = 0
    back_seconds: float = 0.0
    end_seconds: float = 0.0
    end_code: int = 0


def make_models(root: Path, *, minilm: bool = False) -> None:
    """A repository of random models: those of the table and the neighbour's.

    Args:
        root: does not exist yet.
        minilm: whether models for vectors have MiniLM's shape; else all are tiny.
    """
    for name, task in MODELS.items():
        shape = _MINILM if minilm and task == "feature-extraction" else {}
        # A vocabulary of real size, since masks are filled and sparse vectors made from all of it.
        vocabulary = {"vocab_size": 30_522} if minilm and task == "fill-mask" else {}
        changes: dict[str, Any] = {"max_position_embeddings": POSITIONS}
        source = root.with_name(f"{root.name}-sources") / name
        save_tiny(source, "bert", task, **changes | OF_TASK[task] | shape | vocabulary)
        bundle = root / name / "1"
        bundle.parent.mkdir(parents=True)
        export_model(str(source), bundle, name=name, task=task)
    shutil.copytree(root / VECTORS / "1", root / NEIGHBOUR / "1")


class _Client:
    """A process of callers."""

    def __init__(self) -> None:
        tests = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robustness.drill_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": tests},
            text=True,
        )

    def prepare(self, **order: Any) -> None:
        self._write(json.dumps(order))
        assert self._read() == "ready\n"

    def go(self) -> None:
        self._write("go")

    def result(self) -> Any:
        return json.loads(self._read())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Drill:
    """Drills rows on one server after the other; use it with `with`.

    Attributes:
        server: that runs.
        idle: of the neighbour beside an idle server, each time that it was measured.
    """

    def __init__(self, root: Path, scratch: Path, *flags: str, seconds: float) -> None:
        """Start nothing yet.

        Args:
            root: the repository that :func:`make_models` made.
            scratch: for the server's log and caches.
            flags: of the server besides.
            seconds: that each part of a drill takes.
        """
        self.server = RestartableServer(
            [
                *("--repository", str(root), "--default-model", NEIGHBOUR),
                *("--http-address", "off", "--cache-folder", str(scratch / "cache")),
                *("--drain-seconds", str(DRAIN_SECONDS), *flags),
            ],
            scratch / "serve.log",
        )
        self.idle: list[Waits] = []
        self._seconds = seconds
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        self._ends.callback(self.server.close)
        self.server.start()
        self._near, self._far = _Client(), _Client()
        self._ends.callback(self._near.close)
        self._ends.callback(self._far.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def run(self, row: WorstCall) -> Result:
        """Drill one row; the server must run, and runs again afterwards."""
        found = Result(row.name)
        if row.beyond:
            self._note(found, self._attack(row, 1, once=True))
            return found
        self.idle.append(self._neighbour())
        found.before = self.server.resident_bytes()
        _forget_peak(self.server.pid)
        found.alone = self._neighbour(lambda: self._prepare(row, 1), self._far)
        self._note(found, self._far.result())
        found.eight = self._neighbour(lambda: self._prepare(row, CALLERS), self._far)
        self._far.result()
        found.peak = _peak(self.server.pid)
        found.after, found.back_seconds = self._recovery(found.before)
        return found

    def peak(self, row: WorstCall) -> int:
        """What one call takes at most, in bytes beyond what the idle server has."""
        before = self.server.resident_bytes()
        _forget_peak(self.server.pid)
        self._attack(row, 1, once=True)
        return _peak(self.server.pid) - before

    def end(self, row: WorstCall, found: Result) -> None:
        """Send SIGTERM in the middle of eight calls, note how it ends, and start again."""
        self._prepare(row, CALLERS)
        self._far.go()
        time.sleep(min(1.0, self._seconds / 2))
        begin = time.monotonic()
        try:
            found.end_code = self.server.end(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.server.close()
            found.end_code = -signal.SIGKILL
        found.end_seconds = time.monotonic() - begin
        self._far.result()
        self.server.start()

    def _prepare(self, row: WorstCall, callers: int, *, once: bool = False) -> None:
        self._far.prepare(
            ask="attack",
            address=self.server.address,
            name=row.name,
            callers=callers,
            seconds=self._seconds,
            once=once,
        )

    def _attack(self, row: WorstCall, callers: int, *, once: bool) -> list[dict[str, Any]]:
        self._prepare(row, callers, once=once)
        self._far.go()
        outcomes: list[dict[str, Any]] = self._far.result()
        return outcomes

    def _neighbour(
        self, prepare: Callable[[], None] = lambda: None, beside: _Client | None = None
    ) -> Waits:
        """The neighbour's waits, alone or beside callers that are prepared first."""
        prepare()
        self._near.prepare(
            ask="neighbour", address=self.server.address, model=NEIGHBOUR, seconds=self._seconds
        )
        if beside is not None:
            beside.go()
        self._near.go()
        return Waits.of(self._near.result())

    def _recovery(self, before: int) -> tuple[int, float]:
        """The least that was resident within the time that it has to come back, and when."""
        begin = time.monotonic()
        least = self.server.resident_bytes()
        while least > MOST_GROWTH * before:
            if time.monotonic() - begin > RECOVERY_SECONDS:
                return least, float("inf")
            time.sleep(0.1)
            least = min(least, self.server.resident_bytes())
        return least, time.monotonic() - begin

    @staticmethod
    def _note(found: Result, outcomes: Sequence[dict[str, Any]]) -> None:
        for each in outcomes:
            code = each["code"]
            found.outcomes[code] = found.outcomes.get(code, 0) + 1
            if code not in {"OK", "CANCELLED"}:
                found.refusal = max(found.refusal, each["seconds"])
            found.answer_bytes = max(found.answer_bytes, each["answer_bytes"])


def ratios(found: Result, idle: Sequence[Waits]) -> tuple[float, float]:
    """How many times longer the neighbour waited: p99 and longest, the worse of alone and eight."""
    p99 = statistics.median(each.p99 for each in idle)
    longest = statistics.median(each.longest for each in idle)
    beside = [each for each in (found.alone, found.eight) if each is not None]
    return (
        max((each.p99 for each in beside), default=0.0) / p99,
        max((each.longest for each in beside), default=0.0) / longest,
    )


def faults(found: Result, idle: Sequence[Waits], *, times: bool = True) -> list[str]:
    """What a drill must show, and this one did not.

    Args:
        found: by it.
        idle: what times are compared with.
        times: whether to look at what depends on how busy the machine is.
    """
    wrong = []
    if found.end_seconds and found.end_code not in ENDS:
        wrong.append(f"exit code {found.end_code}")
    if not times:
        return wrong
    p99, longest = ratios(found, idle)
    for what, value, most in (
        ("p99 of the neighbour", p99, MOST_P99),
        ("longest wait of the neighbour", longest, MOST_LONGEST),
        ("seconds of a refusal", found.refusal, MOST_REFUSAL_SECONDS),
        ("seconds until the end", found.end_seconds, MOST_END_SECONDS),
        ("resident memory afterwards", found.after / (found.before or 1), MOST_GROWTH),
    ):
        if value > most:
            wrong.append(f"{what}: {value:.2f}, and at most {most} is allowed")
    return wrong


def as_json(found: Result) -> dict[str, Any]:
    """For a file; :func:`from_json` reads it."""
    return asdict(found)


def from_json(saved: dict[str, Any]) -> Result:
    """What :func:`as_json` made."""
    waits = {name: Waits(**saved[name]) for name in ("alone", "eight") if saved[name]}
    return Result(**saved | waits)


def _forget_peak(pid: int) -> None:
    """Let the kernel's peak of resident memory begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _peak(pid: int) -> int:
    """The most that was resident since then, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
