"""Whether others were at work while we measured, and how much.

::

    before      load average; and a look at others, which a run waits for (:func:`wait_until_quiet`)
    each turn   /proc/stat of our cores: time stolen by the hypervisor; time of other processes,
                which is what the cores were busy less what our own processes took. A turn with too
                much of either is dropped and taken again (:meth:`NoiseWatch.undisturbed`)
    each round  a kernel that always does the same, on all our cores at once
    each turn   the time of a cache line between two cores (:mod:`bertd_bench.harness.handover`);
                while they are further apart than before, the turn waits

The kernel's times spread when a core is taken away, or its clock changes. It is plain arithmetic
of numpy in threads of its own: no library that is measured has a part in it, so that a ratio to
it means the same after a change of any of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import numpy as np
from pydantic import BaseModel

from bertd_bench.harness import cputime, handover

STAT = Path("/proc/stat")

LOAD_LIMIT = 0.25  # of our cores, before the run
STEAL_LIMIT = 0.01  # of our cores' time
OTHERS_LIMIT = 0.05  # of our cores' time
SPREAD_LIMIT = 0.05  # of the kernel's median: between its quartiles
FAR = 1.4  # times the shortest handover seen: cores that are no longer beside each other
FAR_LIMIT = 0.05  # of the turns
_KERNEL_REPEATS = 5
TRIES = 4  # of a turn, where noise is not accepted
_LOOK_SECONDS = 2.0
_WAIT_SECONDS = 60.0  # for others to end, before a run
_NAP_SECONDS = 1.0
_PATIENCE_SECONDS = 45.0  # of one watch, for cores to come back

_Turn = TypeVar("_Turn")


class BusyError(RuntimeError):
    """Others are at work on this machine; the message says how much, and what to do."""


class Noise(BaseModel, frozen=True):
    """What was seen of others.

    Attributes:
        load: load average of the last minute before the run, over our cores.
        steal: stolen share of our cores' time during the run; None where nobody counts it.
        others: share of our cores' time that other processes took; None likewise.
        calibration_ns: times of the kernel, round by round.
        spread: distance between the kernel's quartiles over its median.
        handovers_ns: before each turn, once it had waited; empty where nobody measured it.
        nearest_ns: the shortest handover of the run until then; 0 likewise.
        waited_seconds: for cores that were far apart.
        dropped: turns that others disturbed, taken again; nothing of them is in the result.
    """

    load: float
    steal: float | None
    others: float | None
    calibration_ns: list[list[int]]
    spread: float
    handovers_ns: list[int] = []
    nearest_ns: int = 0
    waited_seconds: float = 0.0
    dropped: int = 0

    @property
    def far(self) -> float:
        """Share of the turns that began with the cores far apart all the same."""
        far = [each for each in self.handovers_ns if each > FAR * self.nearest_ns]
        return len(far) / max(1, len(self.handovers_ns))

    @property
    def reasons(self) -> list[str]:
        """Why this run is noisy; empty for a quiet one."""
        said = [
            (self.load, LOAD_LIMIT, f"load {self.load:.2f} per core before the run"),
            (self.steal or 0, STEAL_LIMIT, f"{self.steal or 0:.1%} of our cores' time stolen"),
            (self.others or 0, OTHERS_LIMIT, f"other processes took {self.others or 0:.1%} of it"),
            (self.spread, SPREAD_LIMIT, f"a kernel of constant work spread by {self.spread:.1%}"),
            (self.far, FAR_LIMIT, f"the cores were far apart in {self.far:.0%} of the turns"),
        ]
        return [text for value, limit, text in said if value > limit]

    @property
    def noisy(self) -> bool:
        """Whether any limit is exceeded."""
        return bool(self.reasons)

    @property
    def calibration(self) -> float:
        """Median of the kernel in nanoseconds."""
        return float(np.median([sample for each in self.calibration_ns for sample in each]))

    @property
    def verdict(self) -> str:
        """One or two sentences beside a table."""
        turns = ""
        if self.dropped:
            turns = f" {self.dropped} disturbed turns were dropped, and taken again."
        if not self.noisy:
            return f"The machine was quiet during this run.{turns}"
        return f"The machine was NOISY during this run: {'; '.join(self.reasons)}.{turns}"


class Times(NamedTuple):
    """Seconds of some cores since the system started."""

    busy: float
    stolen: float
    total: float


def read_times(cores: Sequence[int], stat: Path = STAT) -> Times | None:
    """What /proc/stat says of these cores; None where there is none.

    Fields (proc(5)): user nice system idle iowait irq softirq steal guest guest_nice; guest time
    is part of user time.
    """
    try:
        lines = stat.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    wanted = {f"cpu{core}" for core in cores}
    ticks = np.zeros(8)
    for line in lines:
        name, *fields = line.split()
        if name in wanted:
            ticks += np.array([int(field) for field in fields[:8]])
    if not ticks.any():
        return None
    user, nice, system, idle, waiting, irq, soft, stolen = ticks / os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + irq + soft
    return Times(float(busy), float(stolen), float(busy + idle + waiting + stolen))


def spread_of(rounds: Sequence[Sequence[int]]) -> float:
    """Distance between the quartiles over the median, of all samples; 0 for none."""
    samples = [sample for each in rounds for sample in each]
    if not samples:
        return 0.0
    first, middle, third = np.percentile(samples, [25, 50, 75])
    return float((third - first) / middle)


class Kernel:
    """The same arithmetic every time, on every core at once; about 3 ms."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="calibration")
        rng = np.random.default_rng(0)
        self._left, self._right = rng.random((2, 1 << 16), np.float32)  # 256 KiB each: L2
        self._stream = rng.random(1 << 19, np.float32)  # 2 MiB: beyond it

    def _work(self) -> float:
        total = 0.0
        for _ in range(200):
            total += float(np.einsum("i,i->", self._left, self._right))
        return total + float(sum(np.einsum("i->", self._stream) for _ in range(4)))

    def time(self, repeats: int = _KERNEL_REPEATS) -> list[int]:
        """Nanoseconds until the slowest core is done, so many times; one more goes before."""
        samples = []
        for _ in range(repeats + 1):
            begin = time.perf_counter_ns()
            list(self._pool.map(lambda _: self._work(), range(self._threads)))
            samples.append(time.perf_counter_ns() - begin)
        return samples[1:]

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()


class Distance:
    """How far apart the first two cores are, and the least that it was in this run."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._handover = handover.of(cores)
        self.nearest_ns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._handover is not None:
            self._handover.close()

    def measure(self) -> int:
        """Nanoseconds of a turn, the best of three; 0 where it cannot be had."""
        if self._handover is None:
            return 0
        found = min(self._handover.time() or 0 for _ in range(3))
        self.nearest_ns = min(found or self.nearest_ns, self.nearest_ns or found)
        return found


class Moment(NamedTuple):
    """A look at our cores.

    Attributes:
        times: of all processes; None where nobody counts them.
        own: CPU seconds of this process and all below it.
    """

    times: Times | None
    own: float


def look(cores: Sequence[int]) -> Moment:
    """What the cores and our own processes have done until now."""
    return Moment(read_times(cores), cputime.of_tree(os.getpid()))


class Shares(NamedTuple):
    """Of our cores' time between two moments; None where nobody counts it."""

    steal: float | None
    others: float | None

    @classmethod
    def between(cls, begin: Moment, end: Moment) -> Shares:
        """What was stolen, and what other processes took."""
        if begin.times is None or end.times is None:
            return cls(None, None)
        total = max(end.times.total - begin.times.total, 1e-9)
        busy = end.times.busy - begin.times.busy - (end.own - begin.own)
        return cls((end.times.stolen - begin.times.stolen) / total, max(0.0, busy / total))

    @property
    def noisy(self) -> bool:
        """Whether a limit is exceeded."""
        return (self.steal or 0) > STEAL_LIMIT or (self.others or 0) > OTHERS_LIMIT


def wait_until_quiet(
    cores: Sequence[int],
    progress: Callable[[str], None],
    now: Callable[[], Moment] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once nobody else is at work for a moment.

    Args:
        cores: that are ours.
        progress: told that this waits.
        now: looks at them.
        sleep: between two looks.

    Raises:
        BusyError: others were at work all the time.
    """
    now = now or (lambda: look(cores))
    for turn in range(int(_WAIT_SECONDS / _LOOK_SECONDS)):
        begin = now()
        sleep(_LOOK_SECONDS)
        seen = Shares.between(begin, now())
        if not seen.noisy:
            return
        if not turn:
            progress(f"others take {seen.others or 0:.0%} of our cores: waiting for them to end")
    raise BusyError(
        f"other processes took {seen.others or 0:.0%} of our cores' time and the hypervisor "
        f"{seen.steal or 0:.0%}, {_WAIT_SECONDS:.0f} s long, so ratios would mean nothing: end "
        "them, or measure all the same with --accept-noise"
    )


class NoiseWatch:
    """Watches a run; use it as a context, and ask for the noise at its end."""

    def __init__(
        self,
        cores: Sequence[int],
        load: float | None = None,
        distance: Distance | None = None,
        tries: int = 1,
    ) -> None:
        """Begin.

        Args:
            cores: logical cores that are ours.
            load: load average before the run; None takes that of now.
            distance: of the cores; outlives this watch. Without it turns do not wait.
            tries: of a turn that others disturb; 1 keeps what comes.
        """
        self._tries = tries
        self._dropped = 0
        self._kept: list[tuple[Moment, Moment]] = []
        self._distance = distance
        self._handovers: list[int] = []
        self._waited = 0.0
        self._cores = list(cores)
        self._load = (os.getloadavg()[0] if load is None else load) / len(self._cores)
        self._kernel = Kernel(len(self._cores))
        self._calibration: list[list[int]] = []
        self._begin = look(self._cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._kernel.close()

    def calibrate(self) -> None:
        """Time the kernel; once between rounds."""
        self._calibration.append(self._kernel.time())

    def settle(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait, within limits, while the cores are far apart; before each turn, all at rest."""
        if self._distance is None:
            return
        found = self._distance.measure()
        while found > FAR * self._distance.nearest_ns and self._waited < _PATIENCE_SECONDS:
            sleep(_NAP_SECONDS)
            self._waited += _NAP_SECONDS
            found = self._distance.measure()
        if found:
            self._handovers.append(found)

    def undisturbed(self, turn: Callable[[], _Turn]) -> _Turn:
        """Take a turn until nobody disturbs it, or tries are used up; gives the last."""
        for left in reversed(range(self._tries)):
            begin = look(self._cores)
            found = turn()
            end = look(self._cores)
            if not left or not Shares.between(begin, end).noisy:
                break
            self._dropped += 1
        self._kept.append((begin, end))
        return found

    def noise(self) -> Noise:
        """What was seen so far: of the turns that were kept, or of the whole time without any."""
        spans = self._kept or [(self._begin, look(self._cores))]
        seen = [Shares.between(*span) for span in spans]
        return Noise(
            load=self._load,
            steal=_mean([each.steal for each in seen]),
            others=_mean([each.others for each in seen]),
            calibration_ns=self._calibration,
            spread=spread_of(self._calibration),
            handovers_ns=self._handovers,
            nearest_ns=self._distance.nearest_ns if self._distance else 0,
            waited_seconds=self._waited,
            dropped=self._dropped,
        )


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [each for each in shares if each is not None]
    return sum(known) / len(known) if known else None
