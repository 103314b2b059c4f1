"""What `pip install '.[server]'` brings into an environment that has nothing, and what it costs.

::

    source ──pip──> fresh environment ─┬─> packages and their bytes ─┐
                                       └─> imports, timed ───────────┼─> Footprint ──> documents
    here ──────────────────> the default model served, first answer ─┘

The container of deploy/Containerfile installs the same, so that the list is the image's too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from bertd_server.system import cpu
from pydantic import BaseModel

from bertd_bench.contestants.eager import BenchError, default_pair
from bertd_bench.harness import machine
from bertd_bench.install import coldstart

EXTRA = "server"
IMPORTS = ("bertd_client", "bertd_server.process.app")
"""What is timed: what an application imports, and all that a server imports."""

# Files as their installer has recorded them, compiled ones included.
_PACKAGES = """
import json
from importlib.metadata import distributions
print(json.dumps([
    {
        "name": found.metadata["Name"].lower().replace("_", "-"),
        "version": found.version,
        "bytes": sum(
            path.stat().st_size
            for path in {found.locate_file(file) for file in found.files or ()}
            if path.is_file()
        ),
    }
    for found in distributions()
]))
"""
_IMPORT = """
import sys, time
begin = time.perf_counter_ns()
__import__(sys.argv[1])
print(time.perf_counter_ns() - begin)
"""


class Package(BaseModel, frozen=True):
    """An installed distribution, and the bytes of its files."""

    name: str
    version: str
    bytes: int


class Footprint(BaseModel, frozen=True):
    """A serving install.

    Attributes:
        imports: nanoseconds of each run, by module.
        starts: nanoseconds from exec to the first answer of each run, by who answered; empty in
            results that were measured without.
    """

    benchmark: Literal["footprint"] = "footprint"
    machine: machine.Machine
    packages: list[Package]
    imports: dict[str, list[int]]
    starts: dict[str, list[int]] = {}

    @property
    def megabytes(self) -> float:
        """Of all packages, in units of 10^6 bytes."""
        return sum(package.bytes for package in self.packages) / 1e6


def install(source: Path, folder: Path) -> Path:
    """Install a source tree with the extra `server` into a new environment.

    Args:
        source: has pyproject.toml and constraints.txt.
        folder: of the environment, which has no pip in it.

    Returns:
        The environment's Python.

    Raises:
        BenchError: pip could not; the message is its last line.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    flags = ["--no-input", "--disable-pip-version-check", "--compile"]
    wanted = ["-c", str(source / "constraints.txt"), f"{source}[{EXTRA}]"]
    done = _run([*pip, *flags, *wanted])
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or "it said nothing"
        raise BenchError(f"pip could not install {source}[{EXTRA}]: {said}")
    return python


def packages(python: Path) -> list[Package]:
    """All that is installed for this Python, by name."""
    found = _run([str(python), "-I", "-c", _PACKAGES])
    return sorted(
        (Package.model_validate(each) for each in json.loads(found.stdout)),
        key=lambda package: package.name,
    )


def import_times(python: Path, module: str, runs: int) -> list[int]:
    """Nanoseconds of an import in new processes, after one that fills the file cache."""
    command = [str(python), "-I", "-c", _IMPORT, module]
    return [int(_run(command).stdout) for _ in range(runs + 1)][1:]


def measure(source: Path, runs: int, progress: Callable[[str], None]) -> Footprint:
    """Install, list and time.

    Raises:
        BenchError: pip could not install, or a start failed.
    """
    threads = cpu.usable_threads()
    described = machine.describe(threads)
    with tempfile.TemporaryDirectory(prefix="bertd-footprint-") as folder:
        progress(f"installing {source.resolve()}[{EXTRA}]")
        python = install(source.resolve(), Path(folder) / "environment")
        progress("timing imports")
        installed = packages(python)
        imports = {module: import_times(python, module, runs) for module in IMPORTS}
    progress("timing cold starts")
    starts = coldstart.measure(default_pair(), threads, runs)
    return Footprint(machine=described, packages=installed, imports=imports, starts=starts)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to which a PYTHONPATH of ours means nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(  # noqa: S603 - our own commands
        command, env=environment, capture_output=True, text=True, check=False
    )
