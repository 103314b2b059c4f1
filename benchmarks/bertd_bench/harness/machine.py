"""What machine this is, and what ran on it.

Cores are those that this process can really use: its affinity, cut by its cgroups' quota, and how
many of them share a physical core (SMT). What a system does not tell is None, never a guess.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bertd
import psutil
from bertd_server.system import cpu
from pydantic import BaseModel

_CPUS = Path("/sys/devices/system/cpu")
_FEATURES = (  # instruction sets that decide which kernels run
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip

PACKAGES = ("torch", "transformers", "tokenizers", "onnxruntime", "grpcio", "numpy")


class Machine(BaseModel, frozen=True):
    """A fingerprint, to be read beside any number.

    Attributes:
        affinity: logical cores that this process may run on.
        usable_threads: how many of them its quota allows at once.
        load_average: of 1, 5 and 15 minutes, before the run.
        quota_cores: CPU quota of the cgroups in cores; None without one.
        threads_per_core: logical cores of the affinity that share a physical one, at most.
        governor: of the clock's frequency, as Linux says it.
        microcode: its version.
        kernel: of the operating system.
        hypervisor: whether the CPU says that it is a guest's.
        features: instruction sets that decide which kernels run.
    """

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
    quota_cores: float | None = None
    threads_per_core: int | None = None
    governor: str | None = None
    microcode: str | None = None
    kernel: str = ""
    hypervisor: bool | None = None
    features: list[str] = []

    @property
    def busy(self) -> bool:
        """Whether others were at work before the measurement began."""
        return self.load_average[0] > self.usable_threads / 4


def describe(usable_threads: int, versions: Mapping[str, str] | None = None) -> Machine:
    """Describe this machine as it is now.

    Args:
        usable_threads: of this process.
        versions: of further packages, or of other processes' own.
    """
    said = _cpuinfo()
    flags = said.get("flags", said.get("Features", "")).split()
    quota = cpu.quota_cores()
    return Machine(
        cpu=said.get("model name") or platform.processor() or "unknown",
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
            **(versions or {}),
        },
        quota_cores=None if math.isinf(quota) else quota,
        threads_per_core=_threads_per_core(_affinity() or []),
        governor=_read(_CPUS / "cpu0/cpufreq/scaling_governor"),
        microcode=said.get("microcode"),
        kernel=platform.release(),
        hypervisor="hypervisor" in flags if flags and sys.platform == "linux" else None,
        features=[name for name in _FEATURES if name in flags],
    )


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty without one."""
    first = (_read(Path("/proc/cpuinfo")) or "").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _threads_per_core(affinity: Sequence[int]) -> int | None:
    """The most logical cores of ours that are one physical core."""
    cores = [_read(_CPUS / f"cpu{number}/topology/thread_siblings_list") for number in affinity]
    if None in cores or not cores:
        return None
    return max(Counter(cores).values())


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _affinity() -> list[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
