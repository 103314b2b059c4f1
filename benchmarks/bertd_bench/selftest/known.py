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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel

from bertd_bench.harness import rounds
from bertd_bench.load import generator
from bertd_bench.load.generator import Open, Outcome, Reply

TOLERANCE = 0.02
PERCENTILES = (50.0, 90.0, 99.0)
_SPIN = 0.003  # seconds before a moment from which it is polled: timers wake late
_ANSWERED = Reply(Outcome.ANSWERED)


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


async def _until(moment: float, clock: Callable[[], float], spin: float) -> None:
    while (rest := moment - clock()) > 0:  # noqa: ASYNC110 - no event: what comes is a moment
        await asyncio.sleep(max(0.0, rest - spin))


@dataclass(slots=True)
class Independent:
    """Request `n` takes `delays[n]` seconds, whatever else is going on."""

    delays: Sequence[float]
    clock: Callable[[], float]
    spin: float

    async def send(self, number: int, within: float) -> Reply:
        """Answer after the delay."""
        del within
        await _until(self.clock() + self.delays[number], self.clock, self.spin)
        return _ANSWERED

    def truth(self, due: Sequence[float]) -> list[float]:
        """Latency of each request."""
        return list(self.delays[: len(due)])


@dataclass(slots=True)
class OneServer:
    """Serves one request after the other; some keep it longer.

    Attributes:
        service: seconds of each request.
        clock: seconds.
        spin: seconds before the end from which it is polled.
        stalls: further seconds of a request, by its number.

    When a request will be done is decided when it comes, so that the lateness of one timer is not
    handed on to the next.
    """

    service: float
    clock: Callable[[], float]
    spin: float
    stalls: dict[int, float] = field(default_factory=dict)
    _free: float = 0.0

    async def send(self, number: int, within: float) -> Reply:
        """Answer when all before and this one are served."""
        del within
        begin = max(self.clock(), self._free)
        self._free = begin + self.service + self.stalls.get(number, 0.0)
        await _until(self._free, self.clock, self.spin)
        return _ANSWERED

    def truth(self, due: Sequence[float]) -> list[float]:
        """Latency of each request, by Lindley's recursion over the moments of arrival."""
        free, latencies = 0.0, []
        for number, moment in enumerate(due):
            free = max(moment, free) + self.service + self.stalls.get(number, 0.0)
            latencies.append(free - moment)
        return latencies


@dataclass(slots=True)
class Blocking:
    """Answers at once, but request `blocked` holds up the whole program for so long.

    Attributes:
        hold: makes the program stand still for so many seconds.
    """

    blocked: int
    seconds: float
    hold: Callable[[float], None]

    async def send(self, number: int, within: float) -> Reply:
        """Answer, perhaps after holding up everything."""
        del within
        if number == self.blocked:
            self.hold(self.seconds)
        return _ANSWERED

    def truth(self, due: Sequence[float]) -> list[float]:
        """Whoever was due while everything stood still waited for the rest of it."""
        end = due[self.blocked] + self.seconds
        begin = due[self.blocked]
        return [max(0.0, end - moment) if moment >= begin else 0.0 for moment in due]


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
    rate = 40.0
    found: list[Finding] = []

    def plan() -> Open:
        return generator.poisson(rate, seconds, [60.0], rng, spin)

    async def measure(
        system: Independent | OneServer | Blocking, name: str, load: Open, shown: Iterable[float]
    ) -> list[generator.Record]:
        records = sorted(await generator.run(load, system.send, clock))
        latencies = [record.latency for record in records]
        truth = system.truth(load.due)
        found.extend(
            Finding(
                system=name,
                what=f"p{q:g}",
                truth=float(np.percentile(truth, q)),
                measured=float(np.percentile(latencies, q)),
            )
            for q in shown
        )
        return records

    load = plan()
    delays = [0.03 + rng.expovariate(1 / 0.03) for _ in load.due]
    await measure(Independent(delays, clock, spin), "independent", load, PERCENTILES)

    await measure(OneServer(0.02, clock, spin), "one server", plan(), PERCENTILES)

    load = plan()
    stalled = OneServer(0.01, clock, spin, {len(load.due) // 3: seconds / 5})
    records = await measure(stalled, "stall", load, PERCENTILES)
    found.append(_all_waiting("stall", stalled.truth(load.due), records))

    load = plan()
    held = Blocking(len(load.due) // 3, seconds / 5, hold)
    records = await measure(held, "blocked generator", load, (90.0, 99.0))
    found.append(_all_waiting("blocked generator", held.truth(load.due), records))
    return found


def _all_waiting(name: str, truth: Sequence[float], records: Sequence[generator.Record]) -> Finding:
    """How much waiting there was in all: what an omission would leave out."""
    return Finding(
        system=name,
        what="all waiting together",
        truth=sum(truth),
        measured=sum(record.latency for record in records),
    )


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
    systems = [_Sleeper(f"{ms} ms", ms / 1000, clock, sleep) for ms in (10, 25)]
    schedule = rounds.Schedule(turns, repeats=5, pause_seconds=0.005, steady_seconds=1.0)
    seen = rounds.run(
        systems,
        0,
        schedule,
        random.Random(0),  # noqa: S311 - the order of turns
        clock=clock,
        sleep=sleep,
    )
    found = [
        Finding(
            system="turns",
            what=f"median of {each.name}",
            truth=system.seconds,
            measured=each.median_ms / 1e3,
        )
        for system, each in zip(systems, seen, strict=True)
    ]
    ratio = Finding(
        system="turns", what="ratio", truth=2.5, measured=seen[1].median_ms / seen[0].median_ms
    )
    return [*found, ratio]
