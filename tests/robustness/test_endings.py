"""A server that is ended at any moment: its exit code, its children, what it leaves in its cache.

Each point starts a server and sends it a signal at a random moment: while it starts, exports the
default model, loads, serves, takes another version of a model, or drains. The next start must find
nothing in its way, and once one has come to serve, no scratch is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bertd import bundle
from bertd_server.models import default_model
from helpers.forked import CODE
from helpers.patience import PATIENCE
from robustness.scale import SCALE, patient

MARK = "DRILL_OF_ENDINGS"
STOPS = (signal.SIGTERM, signal.SIGINT)
POINTS = 12 * SCALE
EXPORTS = SCALE // 2
QUICK = (
    *("serve", "--warmup-seconds=0", "--calibration-seconds=0.02", "--address=127.0.0.1:0"),
    *("--http-address=127.0.0.1:0", "--lanes=1", "--threads=1"),
)

pytestmark = [
    patient,
    pytest.mark.skipif(sys.platform != "linux", reason="it forks, and reads /proc"),
]


class Forks:
    """Servers, one at a time, of a process that forks them."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.log = folder / "serve.log"
        self._mark = f"{os.getpid()}-{folder.name}"
        self._parent = subprocess.Popen(
            [sys.executable, str(CODE), str(checkpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, arguments: list[str]) -> int:
        """Start a server; returns its pid."""
        return self._asked(json.dumps([arguments, str(self.log), {MARK: self._mark}]))

    def code(self) -> int:
        """The exit code of the one that was started, once it has ended."""
        return self._asked("")

    def _asked(self, line: str) -> int:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(f"{line}\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())

    def survivors(self) -> list[str]:
        """Command lines of processes that a server has left behind."""
        found = []
        mark = f"{MARK}={self._mark}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    def said(self) -> str:
        """All that the last server said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End the process that forks."""
        self._parent.communicate(timeout=PATIENCE)


@pytest.fixture
def forks(tiny_bundle: Path, tmp_path: Path) -> Iterator[Forks]:
    it = Forks(tiny_bundle.parent / "checkpoint", tmp_path)
    yield it
    it.close()


@dataclass(frozen=True)
class Point:
    """When a server is sent what.

    Attributes:
        after: seconds since its start.
        signals: the second one soon after the first.
        pause: seconds between the two.
    """

    after: float
    signals: tuple[signal.Signals, ...]
    pause: float

    @property
    def codes(self) -> set[int]:
        """Exit codes that docs/operations.md allows."""
        if signal.SIGKILL in self.signals:
            return {-signal.SIGKILL, 0}  # 0 of the first signal
        if len(self.signals) == 1:
            return {0}
        second = self.signals[1]
        return {0, 128 + second, -second}  # the last is what a shell calls by the one before


def random_point(seed: random.Random, longest: float) -> Point:
    signals: list[signal.Signals] = [seed.choice((*STOPS, signal.SIGKILL))]
    if signals[0] is not signal.SIGKILL and seed.random() < 0.3:
        signals.append(seed.choice((*STOPS, signal.SIGKILL)))
    return Point(seed.uniform(0, longest), tuple(signals), seed.uniform(0, 0.02))


def drill(forks: Forks, arguments: list[str], point: Point) -> int:
    """Start a server, end it at the point, and check what can be seen at once."""
    pid = forks.start(arguments)
    time.sleep(point.after)
    for number in point.signals:
        os.kill(pid, number)
        time.sleep(point.pause)
    code = forks.code()
    said = forks.said()
    assert code in point.codes, (point, code, said)
    assert "Traceback" not in said, (point, said)
    end = time.monotonic() + PATIENCE
    while survivors := forks.survivors():  # the kernel is at it
        assert time.monotonic() < end, (point, survivors)
        time.sleep(0.01)
    return code


def serve_once(forks: Forks, arguments: list[str]) -> None:
    """A start that nobody disturbs serves; then it ends."""
    pid = forks.start(arguments)
    end = time.monotonic() + PATIENCE
    while '"event": "serving"' not in forks.said():
        assert time.monotonic() < end, forks.said()
        assert "Error" not in forks.said(), forks.said()
        time.sleep(0.02)
    os.kill(pid, signal.SIGTERM)
    assert forks.code() == 0


def scratch_in(cache: Path) -> list[str]:
    """Names in the cache that only what is being written has."""
    kept = [*cache.glob("prepacked/*"), *cache.glob("calibration/*")]
    odd = [path for path in kept if "." in path.name.removesuffix(".json")]
    return [str(path) for path in (*odd, *cache.glob("bundles/*/.*"))]


@pytest.mark.parametrize("kind", ["bundle", pytest.param("repository", marks=pytest.mark.slow)])
def test_a_server_ends_as_documented_whenever_it_is_told_to(
    forks: Forks, tiny_bundle: Path, other_bundle: Path, tmp_path: Path, kind: str
) -> None:
    """From its first moment to its last, in turns of points and of a start that is left alone."""
    seed = random.Random(os.environ.get("ROBUSTNESS_SEED", kind))
    cache, root = tmp_path / "cache", tmp_path / "models"
    arguments = [*QUICK, f"--cache-folder={cache}"]
    if kind == "bundle":
        arguments.append(str(tiny_bundle))
    else:
        shutil.copytree(tiny_bundle, root / "m" / "1")
        arguments += [f"--repository={root}", "--model-control=poll", "--poll-seconds=0.05"]
    codes: Counter[int] = Counter()
    for number in range(POINTS):
        if number % 50 == 0:
            shutil.rmtree(cache, ignore_errors=True)
        if kind == "repository":  # the other version comes or goes while it runs or ends
            second = root / "m" / "2"
            shutil.rmtree(second) if second.exists() else shutil.copytree(other_bundle, second)
        codes[drill(forks, arguments, random_point(seed, 0.7))] += 1
        if number % 10 == 9 or number == POINTS - 1:
            serve_once(forks, arguments)
            assert not scratch_in(cache)
    print(f"{kind}: {POINTS} points, exit codes {dict(codes)}")  # noqa: T201 - with -s


@pytest.mark.skipif(not EXPORTS, reason="each export takes seconds")
def test_an_export_ends_with_the_server_that_began_it(forks: Forks, tmp_path: Path) -> None:
    """However the server ends; the next one exports anew, and nothing is left of the others."""
    seed = random.Random(os.environ.get("ROBUSTNESS_SEED", "export"))
    cache = tmp_path / "cache"
    arguments = [*QUICK, f"--cache-folder={cache}"]
    codes: Counter[int] = Counter()
    for number in range(EXPORTS):
        codes[drill(forks, arguments, random_point(seed, 12.0))] += 1
        if number % 10 == 9 or number == EXPORTS - 1:
            serve_once(forks, arguments)
            assert not scratch_in(cache)
            bundle.verify_files(
                default_model.bundle_folder(cache),
                bundle.read_manifest(default_model.bundle_folder(cache)),
            )
        shutil.rmtree(default_model.bundle_folder(cache), ignore_errors=True)
    print(f"export: {EXPORTS} points, exit codes {dict(codes)}")  # noqa: T201 - with -s
