"""Energy by RAPL, where the kernel lets us read it.

::

    /sys/class/powercap/intel-rapl:0/energy_uj ──before──> work ──after──> joules of the package

The counters are of whole packages, so that others' work is in them; they wrap around.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

POWERCAP = Path("/sys/class/powercap")


class Energy(BaseModel, frozen=True):
    """Energy of some work, or why it is not known.

    Attributes:
        reason: why there is none; None where there is.
        joules: of all packages.
        seconds: that the work took.
        texts: that it answered.
    """

    reason: str | None = None
    joules: float = 0.0
    seconds: float = 0.0
    texts: float = 0.0

    @property
    def per_thousand_texts(self) -> float:
        """Joules."""
        return 1000 * self.joules / self.texts

    @property
    def watts(self) -> float:
        """On average."""
        return self.joules / self.seconds


def measure(
    work: Callable[[], float],
    root: Path = POWERCAP,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy:
    """Read the counters around some work, which says how many texts a second it answered."""
    zones = sorted(root.glob("intel-rapl:?")) + sorted(root.glob("intel-rapl:??"))
    if not zones:
        return Energy(reason=f"{root} has no intel-rapl: virtual machines seldom have it")
    try:
        ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        before, begin = [_number(zone / "energy_uj") for zone in zones], clock()
        rate = work()
        after, end = [_number(zone / "energy_uj") for zone in zones], clock()
    except (OSError, ValueError) as error:
        return Energy(reason=f"RAPL cannot be read ({error}): root may, on most kernels")
    joules = sum(
        (late - early) % (most + 1) / 1e6
        for early, late, most in zip(before, after, ranges, strict=True)
    )
    return Energy(joules=joules, seconds=end - begin, texts=rate * (end - begin))


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
