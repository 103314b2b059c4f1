"""A reader who does what a document says, block by block.

::

    shell block ──ports──> bash on a terminal ──> what it printed, exit code
                             │ exported variables live on in the next block
                             └ `bertd serve` goes to the reader's other terminal: the one before is
                               stopped, and the block goes on once the new one listens
    Python block ──ports──> one session for the document ──> what it printed
    other block whose first line is `# some/name` ──> that file

The reader has a home, a cache and a working folder of its own. Ports of the documents become free
ones, so that readers may work at the same time.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from helpers.markdown import Block

PORTS = (8001, 8002, 8011, 8003)  # of calls, metrics, management, HTTP, in every document
_PORT = re.compile(rf"(?<=:)({'|'.join(map(str, PORTS))})\b")
_EXIT_CODE = re.compile(r"# exit code (\d+)")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FILE = re.compile(r"\A# (\S+\.\w+)\n")

# In the place of `bertd` on the reader's PATH.
_BERTD = """#!/bin/bash
case " $* " in
  " serve "*" --print-config "* | " serve "*" --help "*) exec "$REAL_BERTD" "$@" ;;
  " serve "*) ;;
  *) exec "$REAL_BERTD" "$@" ;;
esac
case "${2:--}" in -*) set -- serve "$DEFAULT_BUNDLE" "${@:2}" ;; esac
case " $* " in *" --repository "*) set -- serve "${@:3}" ;; esac
if [ -f "$READER/server.pid" ]; then
  kill "$(cat "$READER/server.pid")" 2>/dev/null
  while kill -0 "$(cat "$READER/server.pid")" 2>/dev/null; do sleep 0.05; done
fi
rm -f "$READER/server.log"
touch "$READER/server.log"
"$REAL_BERTD" "$@" </dev/null >>"$READER/server.log" 2>&1 &
echo $! >"$READER/server.pid"
until grep -q '"event": "serving"' "$READER/server.log"; do
  if ! kill -0 $! 2>/dev/null; then cat "$READER/server.log"; wait $!; exit; fi
  sleep 0.05
done
"""


class BlockError(AssertionError):
    """A block does not do what its document says."""


class Reader:
    """Runs blocks; `with` ends what they have started.

    Args:
        folder: empty; the reader's home and what they work in are below it.
        default_bundle: what `bertd serve` serves if no model is named.
    """

    def __init__(self, folder: Path, default_bundle: Path) -> None:
        self.folder = folder / "work"
        self._own = folder / "reader"
        bin_ = folder / "bin"
        for each in (self.folder, self._own, bin_, folder / "home"):
            each.mkdir(parents=True)
        shim = bin_ / "bertd"
        shim.write_text(_BERTD, encoding="ascii")
        shim.chmod(0o755)
        (self.folder / ".venv").mkdir()
        (self.folder / ".venv" / "bin").symlink_to(bin_)
        self._ports = dict(zip(map(str, PORTS), map(str, free_ports(len(PORTS))), strict=True))
        serving, metrics, *_ = self._ports.values()
        python = Path(sys.executable).parent
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTD_")}
        self._environment = kept | {
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "home" / ".cache"),
            "PATH": f"{bin_}:{python}:{os.environ['PATH']}",
            "TERM": "dumb",
            "COLUMNS": "120",
            "READER": str(self._own),
            "REAL_BERTD": str(python / "bertd"),
            "DEFAULT_BUNDLE": str(default_bundle),
            "HF_HUB_OFFLINE": "1",
            "BERTD_ADDRESS": f"127.0.0.1:{serving}",  # 8001, for who names none
            "BERTD_HTTP_ADDRESS": f"127.0.0.1:{metrics}",
            "BERTD_SERVER": f"127.0.0.1:{serving}",
            "BERTD_LOG_FORMAT": "json",
            "BERTD_WARMUP_SECONDS": "0",
            "BERTD_CALIBRATION_SECONDS": "0.05",
        }
        self._session: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session:
            self._session.communicate()
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self._own / "server.pid").read_text()), signal.SIGKILL)

    def read(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            BlockError: it failed, or printed something else than the block below it shows.
        """
        text = self._with_free_ports(block.text)
        match block.language:
            case "sh":
                told = _EXIT_CODE.search(text)
                self._compare(block, self.shell(text, int(told[1]) if told else 0))
            case "python":
                self._compare(block, self._python(block, text))
            case _ if name := _FILE.match(text):
                file = self.folder / name[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")

    def _with_free_ports(self, text: str) -> str:
        return _PORT.sub(lambda port: self._ports[port[1]], text)

    def shell(self, text: str, expected: int = 0) -> str:
        """Run a script on a terminal; what it prints.

        Raises:
            BlockError: it ended with another code.
        """
        variables = self._own / "variables"
        script = f"set -e -o pipefail\ntrap 'export -p >{variables}' EXIT\n{text}"
        if variables.exists():
            script = f". {variables}\n{script}"
        terminal, theirs = pty.openpty()
        attributes = termios.tcgetattr(theirs)
        attributes[1] &= ~termios.OPOST  # ends of lines as they are
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        process = subprocess.Popen(
            ["/bin/bash", "-c", script],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.folder,
            env=self._environment,
        )
        os.close(theirs)
        printed = _as_seen(b"".join(_all_of(terminal)).decode())
        os.close(terminal)
        if process.wait() != expected:
            raise BlockError(f"ended with {process.returncode}:\n{text}\n{printed}")
        return printed

    def _python(self, block: Block, text: str) -> str:
        if not self._session:
            self._session = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "python_session.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env=self._environment | {"PYTHONPATH": ""},
            )
        assert self._session.stdin
        assert self._session.stdout
        self._session.stdin.write(json.dumps(text) + "\n")
        self._session.stdin.flush()
        printed, failure = json.loads(self._session.stdout.readline())
        if failure:
            raise BlockError(f"{block}\n{text}\n{printed}{failure}")
        return str(printed)

    def _compare(self, block: Block, printed: str) -> None:
        if block.prints is not None and not agrees(self._with_free_ports(block.prints), printed):
            raise BlockError(f"{block} should print\n{block.prints}\nand prints\n{printed}")


def agrees(shown: str, printed: str, tolerance: float = 0.02) -> bool:
    """Whether a program printed what is shown.

    Spaces do not count, decimals may differ a little, as they do from one CPU to another, and of a
    line that is shown up to `…` the rest may be anything.
    """
    lines = [[line.split() for line in text.strip().splitlines()] for text in (shown, printed)]
    pairs = zip(*([" ".join(line) for line in each] for each in lines), strict=False)
    return len(lines[0]) == len(lines[1]) and all(
        _line_agrees(expected, actual, tolerance) for expected, actual in pairs
    )


_PIECE = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?|\w+|[^\w\s]")


def _line_agrees(shown: str, printed: str, tolerance: float) -> bool:
    expected, actual = _PIECE.findall(shown.partition("…")[0]), _PIECE.findall(printed)
    if "…" in shown:
        actual = actual[: len(expected)]
    return len(expected) == len(actual) and all(
        one == other or _is_close(one, other, tolerance)
        for one, other in zip(expected, actual, strict=True)
    )


def _is_close(one: str, other: str, tolerance: float) -> bool:
    try:
        return "." in one and "." in other and abs(float(one) - float(other)) <= tolerance
    except ValueError:
        return False


def _as_seen(text: str) -> str:
    """What is left on a terminal: lines written over are gone, colours do not show."""
    lines = (_ESCAPE.sub("", line.rpartition("\r")[2]) for line in text.split("\n"))
    return "\n".join(lines)


def _all_of(terminal: int) -> Iterator[bytes]:
    """What is written until nobody has the other end any more."""
    with suppress(OSError):  # EIO: that is how Linux says so
        while read := os.read(terminal, 65536):
            yield read


def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to connections, so that they stay free until used."""
    found: list[int] = []
    start = 20_000 + os.getpid() * 7 % 10_000
    for port in chain(range(start, 32_000), range(20_000, start)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no port is free")
