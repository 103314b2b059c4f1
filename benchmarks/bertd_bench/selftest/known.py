"""Systems whose delays are known, and what the harness makes of them.

::

    plan of arrivals ──> load generator ──> system of known delay ──> latencies
          └──────────> arithmetic (Lindley's recursion) ────────────> the truth

- *independent*: each request takes a time of its own, however many come at once.
- *one server*: requests queue; each is served for a constant time (M/D/1).
- *stall*: the same, and the server stands still for a while. Whoever waits for an answer before
  it sends the next request sees one slow request; the truth is that all that came meanwhile
  waited ("coordinated omission").
- *blocked generator*: the generator itself is held up, as by a garbage collection.
- *turns*: two systems of known time in interleaved rounds, and their ratio.

Delays are made of sleeps, so that nothing here depends on the machine's speed, and are long
against the lateness of a timer. Tests run the same in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel

from bertd_bench.harness import rounds
from bertd_bench.load import generator
from bertd_bench.load.generator import RequestOutcome, SendResult

TOLERANCE = 0.02
_RATE = 40.0  # requests a second
_SPIN = 0.003  # seconds before a moment from which it is polled: timers wake late


class Finding(BaseModel, frozen=True):
    """One number that was measured, and what it should have been; seconds, or a ratio."""

    system: str
    what: str
    truth: float
    measured: float

    @property
    def error(self) -> float:
        """Distance from the truth, as a part of it."""
        return abs(self.measured - self.truth) / self.truth

    @property
    def right(self) -> bool:
        """Whether it is within 2 %."""
        return self.error <= TOLERANCE


@dataclass(slots=True)
class KnownSystem:
    """Request `n` is served for `service[n]` seconds.

    When a request will be done is decided when it comes, so that the lateness of one timer is not
    handed on to the next.

    Attributes:
        service: seconds of each request.
        queued: one after the other, instead of all at once.
        held: the request that holds up the whole program instead of being served.
    """

    name: str
    service: Sequence[float]
    queued: bool = False
    held: int | None = None

    def truth(self, due: Sequence[float]) -> list[float]:
        """Latency of each request; of a queue by Lindley's recursion over the arrivals.

        Whoever is due while the program stands still waits for the rest of it.
        """
        if self.held is not None:
            begin = due[self.held]
            end = begin + self.service[self.held]
            return [max(0.0, end - moment) if moment >= begin else 0.0 for moment in due]
        free, latencies = 0.0, []
        for moment, seconds in zip(due, self.service, strict=False):
            free = (max(moment, free) if self.queued else moment) + seconds
            latencies.append(free - moment)
        return latencies


async def open_loop(
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    hold: Callable[[float], None] = time.sleep,
    spin: float = _SPIN,
) -> list[Finding]:
    """Put Poisson load on each system; compare percentiles of latency with the truth.

    Args:
        seconds: of each load.
        clock: of the event loop that this runs in.
        hold: makes the program stand still.
        spin: seconds before a moment from which it is polled.
    """
    rng = random.Random(7)  # noqa: S311 - moments of arrival, not secrets
    most = int(3 * _RATE * seconds)  # more requests than come
    third = int(_RATE * seconds) // 3
    stalled = [0.01] * most
    stalled[third] += seconds / 5
    found: list[Finding] = []
    for system in (
        KnownSystem("independent", [0.03 + rng.expovariate(1 / 0.03) for _ in range(most)]),
        KnownSystem("one server", [0.02] * most, queued=True),
        KnownSystem("stall", stalled, queued=True),
        KnownSystem("blocked generator", [seconds / 5] * most, held=third),
    ):
        load = generator.poisson(_RATE, seconds, [60.0], rng, spin)
        free = 0.0

        async def send(number: int, within: float, system: KnownSystem = system) -> SendResult:
            nonlocal free
            del within
            if system.held is None:
                free = (max(clock(), free) if system.queued else clock()) + system.service[number]
                await _until(free, clock, spin)
            elif number == system.held:
                hold(system.service[number])
            return SendResult(RequestOutcome.ANSWERED)

        records = await generator.run(load, send, clock)
        found += _findings(system, system.truth(load.due), [each.latency for each in records])
    return found


async def _until(moment: float, clock: Callable[[], float], spin: float) -> None:
    while (rest := moment - clock()) > 0:  # noqa: ASYNC110 - no event: what comes is a moment
        await asyncio.sleep(max(0.0, rest - spin))


def _findings(
    system: KnownSystem, truth: Sequence[float], measured: Sequence[float]
) -> list[Finding]:
    """Percentiles, and all waiting together: what an omission would leave out."""
    shown = (50, 90, 99) if system.held is None else (90, 99)  # half of them do not wait at all
    pairs = {f"p{q}": (np.percentile(truth, q), np.percentile(measured, q)) for q in shown}
    if system.name in {"stall", "blocked generator"}:
        pairs["all waiting together"] = (np.sum(truth), np.sum(measured))
    return [
        Finding(system=system.name, what=what, truth=float(true), measured=float(seen))
        for what, (true, seen) in pairs.items()
    ]


@dataclass(frozen=True, slots=True)
class _Sleeper:
    """A system that takes so long, by a clock."""

    name: str
    seconds: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    threads: int = 1

    def turn(self, index: int, repeats: int) -> list[int]:
        """Sleep up to a moment, and poll the last of it."""
        del index
        samples = []
        for _ in range(repeats):
            begin = self.clock()
            self.sleep(max(0.0, self.seconds - _SPIN))
            while self.clock() - begin < self.seconds:
                self.sleep(0)
            samples.append(int((self.clock() - begin) * 1e9))
        return samples

    def cpu_seconds(self) -> float:
        """It takes none that matters."""
        return 0.0

    def wake(self) -> None:
        """Nothing to wake."""

    def rest(self) -> None:
        """Nothing to stop."""


def interleaved(
    turns: int = 6,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Time two systems in rounds: their medians, and the ratio of these."""
    systems = [_Sleeper(f"median of {ms} ms", ms / 1000, clock, sleep) for ms in (10, 25)]
    schedule = rounds.Schedule(turns, repeats=5, pause_seconds=0.005, steady_seconds=1.0)
    rng = random.Random(0)  # noqa: S311 - the order of turns
    seen = rounds.run(systems, 0, schedule, rng, clock=clock, sleep=sleep)
    short, long = (each.median_ms / 1e3 for each in seen)
    measured = {systems[0].name: (0.01, short), systems[1].name: (0.025, long)}
    return [
        Finding(system="turns", what=what, truth=truth, measured=value)
        for what, (truth, value) in {**measured, "ratio": (2.5, long / short)}.items()
    ]
