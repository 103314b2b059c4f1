"""The method: intervals that hold the truth, steady warm-ups, budgets, noise, known delays."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bertd_bench.harness import (
    cputime,
    handover,
    intervals,
    machine,
    noise,
    rounds,
    steady,
)
from bertd_bench.harness.system import Calls
from bertd_bench.load import generator
from bertd_bench.load.generator import RequestOutcome, SendResult
from helpers.virtual import virtually


def correlated(rng: np.random.Generator, rounds_: int, median: float) -> list[list[float]]:
    """Ten samples a round, and a part of each that the round decides for all of them."""
    moments = rng.lognormal(0, 0.05, (rounds_, 1))
    return (median * moments * rng.lognormal(0, 0.02, (rounds_, 10))).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("rounds_", [5, 12])
def test_intervals_hold_the_truth_about_as_often_as_they_say(rounds_: int) -> None:
    """95 %, though samples of a round move together; by samples alone it would be half that."""
    rng = np.random.default_rng(1)
    trials = 150
    held = np.zeros(3, int)
    for _ in range(trials):
        slow, fast = correlated(rng, rounds_, 30), correlated(rng, rounds_, 20)
        found = (
            (30, intervals.median_interval(slow)),
            (1.5, intervals.ratio_interval(slow, fast)),
            (1.5, intervals.unpaired_interval(slow, fast)),
        )
        held += [interval is not None and truth in interval for truth, interval in found]
    assert (held / trials > 0.9).all(), held


def test_a_ratio_is_paired_by_rounds() -> None:
    """A slow minute that falls on both leaves their ratio alone."""
    slow = [[10.0 * moment] * 3 for moment in (1, 5, 2, 1, 3)]
    found = intervals.ratio_interval(slow, [[sample / 2 for sample in each] for each in slow])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((2, 2))


def test_what_cannot_be_known_has_no_interval() -> None:
    """One round says nothing of the next; rounds of two runs are no pairs."""
    assert intervals.median_interval([[1.0, 2.0]]) is None
    assert intervals.unpaired_interval([[1.0]], [[1.0], [2.0]]) is None
    with pytest.raises(ValueError, match="2 rounds cannot be paired with 1"):
        intervals.ratio_interval([[1.0], [2.0]], [[1.0]])


def test_a_warm_up_goes_on_until_two_windows_agree() -> None:
    """Ten slow calls, then steady ones: the last slow one has left both windows."""
    times = iter([1000] * 10 + [900 - 100 * n for n in range(6)] + [100] * 100)
    warmup = steady.warm_up(lambda calls: [next(times) for _ in range(calls)], 60)
    assert warmup.steady
    assert warmup.calls == 10  # what does not change is steady, whatever comes later
    falling = iter([int(1e9 * 0.8**n) for n in range(60)])
    warmup = steady.warm_up(lambda calls: [next(falling) for _ in range(calls)], 3)
    assert not warmup.steady
    assert warmup.seconds >= 3


class Busy:
    """A system that uses so many cores, of virtual time."""

    def __init__(self, name: str, cores: float, world: list[float]) -> None:
        self.name, self.threads = name, 2
        self._cores, self._world, self._used = cores, world, 0.0
        self.awake = False

    def turn(self, index: int, repeats: int) -> list[int]:
        assert self.awake
        assert index == 3
        self._world[0] += 0.1 * repeats
        self._used += 0.1 * repeats * self._cores
        return [100_000_000] * repeats

    def cpu_seconds(self) -> float:
        return self._used

    def wake(self) -> None:
        self.awake = True

    def rest(self) -> None:
        self.awake = False


def test_whoever_uses_more_than_its_threads_is_marked() -> None:
    """Two threads may be 2.2 cores; systems sleep while others have their turn."""
    world = [0.0]
    systems = [Busy("fair", 2.1, world), Busy("greedy", 2.6, world)]
    seen = rounds.run(
        systems,
        3,
        rounds.Schedule(3, repeats=4, steady_seconds=5),
        random.Random(0),
        clock=lambda: world[0],
        sleep=lambda _: None,
    )
    assert [each.over_budget for each in seen] == [False, True]
    assert [each.cores for each in seen] == pytest.approx([2.1, 2.6])
    assert [len(each.samples_ns) for each in seen] == [12, 12]
    assert all(each.warmup is not None and each.warmup.steady for each in seen)
    assert not any(system.awake for system in systems)


def test_names_of_contestants_differ() -> None:
    """Results are found by name."""
    systems = Calls.each({"a": int}, 1) * 2
    with pytest.raises(ValueError, match="repeat"):
        rounds.run(systems, 0, rounds.Schedule(1), random.Random(0))


def test_cpu_time_counts_threads_and_children_of_a_process() -> None:
    """It never runs backwards, and a process that is gone has none."""
    before = cputime.of_tree(os.getpid())
    sum(range(100_000))
    assert cputime.of_tree(os.getpid()) > before > 0
    assert cputime.of_process(2**22 + 1) == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"load": 0.5}, "load 0.50 per core"),
        ({"steal": 0.03}, "3.0% of our cores' time stolen"),
        ({"others": 0.2}, "other processes took 20.0%"),
        ({"spread": 0.08}, "constant work spread by 8.0%"),
    ],
)
def test_a_noisy_run_says_why(changes: dict[str, float], said: str | None) -> None:
    quiet = noise.Noise(load=0.1, steal=0.0, others=0.01, calibration_ns=[[1, 2]], spread=0.01)
    seen = quiet.model_copy(update=changes)
    assert seen.noisy == (said is not None)
    assert "NOISY" in seen.verdict if said else "quiet" in seen.verdict
    assert said is None or said in seen.verdict


def test_times_are_those_of_our_cores(tmp_path: Path) -> None:
    """Guest time is part of user time; cores of others do not count."""
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  99 99 99 99 99 99 99 99 0 0\n"
        "cpu0 100 0 50 800 10 5 5 30 7 0\n"
        "cpu1 900 0 0 0 0 0 0 0 0 0\n"
    )
    tick = os.sysconf("SC_CLK_TCK")
    found = noise.read_times([0], stat)
    assert found is not None
    assert [value * tick for value in found] == pytest.approx([160, 30, 1000])
    assert noise.read_times([0], tmp_path / "missing") is None


def test_a_watch_sees_the_kernel_and_knows_our_own_work() -> None:
    with noise.NoiseWatch([0]) as watch:
        watch.calibrate()
        seen = watch.noise()
    assert len(seen.calibration_ns) == 1
    assert seen.calibration > 0
    assert noise.spread_of([[100, 100], [100, 200]]) == pytest.approx(0.25)
    assert noise.spread_of([]) == 0.0


def moments(*others: float) -> Iterator[noise.Moment]:
    """Two looks for each span of a second, in which others took such a share of a core."""
    at = busy = 0.0
    for share in others:
        yield noise.Moment(noise.Times(busy, 0, at), 0)
        at, busy = at + 1, busy + share
        yield noise.Moment(noise.Times(busy, 0, at), 0)


def test_a_disturbed_turn_is_dropped_and_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three turns the second is quiet; what is dropped is counted, and is in no share."""
    with noise.NoiseWatch([0], tries=4) as watch:
        seen = moments(0.9, 0.01, 0.7, 0.8, 0.9, 0.9)
        monkeypatch.setattr(noise, "look", lambda _: next(seen))
        turns = iter(range(6))
        assert watch.undisturbed(lambda: next(turns)) == 1
        assert watch.noise().dropped == 1
        assert watch.noise().others == pytest.approx(0.01)
        assert watch.undisturbed(lambda: next(turns)) == 5  # the last of four tries
        assert watch.noise().dropped == 4
        assert watch.noise().noisy


def test_noise_that_is_accepted_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with noise.NoiseWatch([0]) as watch:
        seen = moments(0.9)
        monkeypatch.setattr(noise, "look", lambda _: next(seen))
        assert watch.undisturbed(lambda: "first") == "first"
        assert watch.noise().dropped == 0
        assert watch.noise().noisy


def test_a_run_waits_for_others_to_end_and_else_asks() -> None:
    said: list[str] = []
    seen = moments(0.5, 0.5, 0.0)
    noise.wait_until_quiet([0], said.append, now=lambda: next(seen), sleep=lambda _: None)
    assert said == ["others take 50% of our cores: waiting for them to end"]
    seen = moments(*[0.6] * 99)
    with pytest.raises(noise.BusyError, match=r"took 60% of our cores.* with --accept-noise"):
        noise.wait_until_quiet([0], said.append, now=lambda: next(seen), sleep=lambda _: None)


def test_a_fingerprint_names_the_cores_that_are_ours() -> None:
    here = machine.describe(1, {"peer": "1.0"})
    assert here.versions["peer"] == "1.0"
    assert here.kernel
    assert here.threads_per_core is None or here.threads_per_core >= 1


@dataclass(slots=True)
class KnownSystem:
    """Request `n` is served for `service[n]` seconds of virtual time.

    Attributes:
        service: seconds of each request.
        queued: one after the other, instead of all at once.
        held: the request that holds up the whole program instead of being served.
    """

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


RATE, SECONDS = 40.0, 10.0  # of Poisson load
MOST = int(3 * RATE * SECONDS)  # more requests than come
THIRD = int(RATE * SECONDS) // 3
STALLED = [0.01 + (2.0 if number == THIRD else 0.0) for number in range(MOST)]
DRAWN = random.Random(7)
KNOWN = {
    "independent": KnownSystem([0.03 + DRAWN.expovariate(1 / 0.03) for _ in range(MOST)]),
    "one server": KnownSystem([0.02] * MOST, queued=True),
    "stall": KnownSystem(STALLED, queued=True),
    "blocked generator": KnownSystem([2.0] * MOST, held=THIRD),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_harness_measures_systems_of_known_delay(name: str) -> None:
    """Percentiles within 2 %, and a stall counts for all that were due in it."""
    system = KNOWN[name]
    load = generator.poisson(RATE, SECONDS, [60.0], random.Random(0))
    free = 0.0

    async def send(number: int, within: float) -> SendResult:
        nonlocal free
        del within
        loop = asyncio.get_running_loop()
        if system.held is None:
            free = max(loop.time(), free) if system.queued else loop.time()
            free += system.service[number]
            await asyncio.sleep(free - loop.time())
        elif number == system.held:
            loop.virtual.now += system.service[number]  # type: ignore[attr-defined]
        return SendResult(RequestOutcome.ANSWERED)

    async def main() -> list[float]:
        records = await generator.run(load, send, asyncio.get_running_loop().time)
        return [each.latency for each in records]

    truth, measured = system.truth(load.due), virtually(main())
    shares = (50, 90, 99) if system.held is None else (90, 99)  # half of them do not wait at all
    assert np.percentile(measured, shares) == pytest.approx(np.percentile(truth, shares), rel=0.02)
    assert np.sum(measured) == pytest.approx(np.sum(truth), rel=0.02)  # an omission would be here
    if name == "stall":
        assert np.percentile(truth, 90) > 1  # most of a naive generator's would take 10 ms


class Sleeper:
    """A system that takes so long, by a clock."""

    threads = 1

    def __init__(self, seconds: float, now: list[float]) -> None:
        self.name = f"{seconds} s"
        self._seconds, self._now = seconds, now

    def turn(self, index: int, repeats: int) -> list[int]:
        del index
        self._now[0] += repeats * self._seconds
        return [round(1e9 * self._seconds)] * repeats

    def cpu_seconds(self) -> float:
        return 0.0

    def wake(self) -> None: ...

    def rest(self) -> None: ...


def test_interleaved_turns_of_known_times() -> None:
    now = [0.0]
    seen = rounds.run(
        [Sleeper(0.01, now), Sleeper(0.025, now)],
        0,
        rounds.Schedule(6, repeats=5, steady_seconds=1.0),
        random.Random(0),
        clock=lambda: now[0],
        sleep=lambda _: None,
    )
    assert [each.median_ms for each in seen] == pytest.approx([10, 25])


def test_turns_wait_while_cores_are_further_apart_than_before() -> None:
    """Told apart by what the cores themselves showed; who waits in vain goes on, and says so."""

    class Moved(noise.Distance):
        def __init__(self, times: list[int]) -> None:
            super().__init__([])
            self._times = times

        def measure(self) -> int:
            found = self._times.pop(0) if self._times else 400
            self.nearest_ns = min(found, self.nearest_ns or found)
            return found

    slept: list[float] = []
    with noise.NoiseWatch([0], distance=Moved([200, 210, 390, 380, 205])) as watch:
        for _ in range(3):
            watch.settle(slept.append)
        seen = watch.noise()
        assert (seen.handovers_ns, seen.nearest_ns, seen.waited_seconds) == (
            [200, 210, 205],
            200,
            2,
        )
        assert len(slept) == 2
        assert seen.far == 0
        for _ in range(3):
            watch.settle(slept.append)
        assert watch.noise().far == 0.5
        assert len(slept) == watch.noise().waited_seconds < 1000
        assert any("far apart in 50% of the turns" in each for each in watch.noise().reasons)


def test_a_cache_line_goes_from_core_to_core_and_back() -> None:
    cores = machine.describe(1).affinity or []
    partner = handover.of(cores)
    if partner is None:
        pytest.skip("a single core, or a system that lets no process choose its core")
    with closing(partner):
        times = [partner.time() for _ in range(5)]
        assert all(each is not None and each > 0 for each in times)
        assert os.sched_getaffinity(0) == set(cores)
        partner._partner.kill()
        partner._partner.wait()
        assert partner.time() is None  # and nobody waits for it
