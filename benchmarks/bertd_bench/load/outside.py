"""A stranger's load generator beside ours: h2load of nghttp2 speaks gRPC's bytes to bertd.

::

    16 texts, one of each length ──> 16 h2load processes, each at a sixteenth of the rate ─┐
    the same rate from our own generator ──────────────────────────────────────────────────┴─> both

h2load repeats one body, and bertd computes equal texts in flight once; so each text has a process.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from bertd_bench.load.ramp import Step

COMMAND = "h2load"
_HEADERS = ("content-type: application/grpc", "te: trailers")
_STREAMS = 64  # more than are ever on the way


class OutsideCheck(BaseModel, frozen=True):
    """One rate, put on one server by two generators.

    Attributes:
        tool: and its version.
        server: that was asked.
        theirs: the rate as the tool put it on, evenly spaced.
        ours: the same from this generator, at random moments.
    """

    tool: str
    server: str
    theirs: Step
    ours: Step


def version() -> str:
    """Of the tool; empty if it is not installed."""
    path = shutil.which(COMMAND)
    if path is None:
        return ""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return done.stdout.strip()


def put(url: str, bodies: Sequence[bytes], rate: float, seconds: float, answer: int) -> Step:
    """Send so many requests a second.

    Args:
        url: of the gRPC method.
        bodies: messages without gRPC's five bytes.
        rate: of all together.
        seconds: for how long.
        answer: bytes of a right one; gRPC's errors come with HTTP 200 and none.

    Raises:
        subprocess.CalledProcessError: the tool fails.
    """
    count = max(1, round(rate * seconds / len(bodies)))
    found: list[int] = []
    with tempfile.TemporaryDirectory(prefix="bertd-bench-") as name:
        running = []
        for number, body in enumerate(bodies):
            data, log = Path(name) / f"{number}.bin", Path(name) / f"{number}.log"
            data.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
            said = [part for header in _HEADERS for part in ("--header", header)]
            said += ["--requests", str(count), "--clients", "1", "--max-concurrent-streams"]
            said += [str(_STREAMS), "--rps", f"{rate / len(bodies):.3f}", "--data", str(data)]
            command = [COMMAND, *said, "--log-file", str(log), url]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
            running.append((process, log))
        for process, log in running:
            told, _ = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, COMMAND, told)
            found += read_log(log.read_text(encoding="ascii"), told, answer + 5)
    return Step(
        rate=rate,
        seconds=seconds,
        requests=count * len(bodies),
        latencies_us=found,
        outcomes={"answered": len(found)},
        late_us=0,
        cores=0,
    )


def read_log(log: str, told: str, answer: int) -> list[int]:
    """Microseconds of each answered request, if the bytes that came are those of as many answers.

    Args:
        log: lines of start, HTTP status and microseconds.
        told: what the tool printed.
        answer: bytes of each.

    Returns:
        The quickest as many as there were whole answers' bytes.
    """
    rows = [line.split("\t") for line in log.splitlines()]
    answered = sorted(int(took) for _, status, took in rows if status == "200")
    data = re.search(r"\((\d+)\) data", told)
    whole = int(data.group(1)) // answer if data else 0
    return answered[:whole]
