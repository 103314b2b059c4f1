"""What machine this is, and what ran on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bertd
import psutil
from pydantic import BaseModel

PACKAGES = ("torch", "transformers", "tokenizers", "onnxruntime", "grpcio", "numpy")


class Machine(BaseModel, frozen=True):
    """A fingerprint, to be read beside any number."""

    cpu: str
    architecture: str
    system: str
    logical_cores: int | None
    physical_cores: int | None
    affinity: list[int] | None
    usable_threads: int
    memory_bytes: int
    load_average: tuple[float, float, float]
    versions: dict[str, str]

    @property
    def busy(self) -> bool:
        """Whether others were at work before the measurement began."""
        return self.load_average[0] > self.usable_threads / 4


def describe(usable_threads: int) -> Machine:
    """Describe this machine as it is now."""
    return Machine(
        cpu=_cpu_model(),
        architecture=platform.machine(),
        system=platform.platform(),
        logical_cores=psutil.cpu_count(),
        physical_cores=psutil.cpu_count(logical=False),
        affinity=_affinity(),
        usable_threads=usable_threads,
        memory_bytes=psutil.virtual_memory().total,
        load_average=psutil.getloadavg(),
        versions={
            "python": platform.python_version(),
            "bertd": bertd.__version__,
            **{name: _version(name) for name in PACKAGES},
        },
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _affinity() -> list[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
