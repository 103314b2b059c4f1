"""What a run of `bertd bench load` saw, with every sample, and the file that holds it."""

from __future__ import annotations

import statistics
from typing import Literal

from pydantic import BaseModel

from bertd_bench.harness.intervals import Ratio, unpaired_interval
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.load.outside import OutsideCheck
from bertd_bench.load.ramp import Step, held
from bertd_bench.load.servers import OURS


class Ramp(BaseModel, frozen=True):
    """One ramp of one contestant.

    Attributes:
        round: counted from 0.
        capacity: texts a second from which it set out.
        steps: in the order in which they were made.
        light: a tenth of the rate that it took; None if it took none.
    """

    round: int
    capacity: float
    steps: list[Step]
    light: Step | None = None


class ContestantRamps(BaseModel, frozen=True):
    """One contestant.

    Attributes:
        what: engine and protocol, in a few words.
        precision: fp32 or int8.
        versions: of its packages.
        setting: that it ran with; empty where nothing is swept.
        swept: texts a second within the objective of each setting that was tried.
        difference: of its vectors from eager's, at most, before it was timed; of unit length.
        cosine: the lowest with eager's.
        cold_start_seconds: until the first answer, with an empty cache; 0 if not measured.
        memory_bytes: of all its processes after each turn; the last is the most it has had.
    """

    name: str
    what: str
    precision: str = "fp32"
    versions: str = ""
    setting: str = ""
    swept: dict[str, float] = {}
    difference: float
    cosine: float = 1.0
    cold_start_seconds: float = 0.0
    memory_bytes: list[int] = []
    ramps: list[Ramp]

    @property
    def own(self) -> bool:
        """Whether it is bertd."""
        return self.name.startswith(OURS)

    @property
    def light_seconds(self) -> float | None:
        """Median latency at a tenth of its rate, over all rounds; None if not measured."""
        found = [ramp.light.percentile(0.5) for ramp in self.ramps if ramp.light]
        return statistics.median(found) if found else None

    def rates(self, objective: float) -> list[float]:
        """Round by round, the highest rate at which 99 % of all requests met the objective."""
        return [held(ramp.steps, objective) for ramp in self.ramps]

    def rate(self, objective: float) -> float:
        """Their median."""
        return statistics.median(self.rates(objective))

    def steps(self) -> list[Step]:
        """Of all rounds, by rate."""
        return sorted((s for ramp in self.ramps for s in ramp.steps), key=lambda step: step.rate)


class GoodputReport(BaseModel, frozen=True):
    """One run.

    Attributes:
        command: what makes it again.
        mean_tokens: of a text.
        objective: seconds, for 99 % of all requests.
        seconds: length of a step.
        skipped: who could not take part; why.
        outside: what another load generator saw of bertd; None if it was not asked.
    """

    benchmark: Literal["load"] = "load"
    command: str
    model: str
    threads: int
    mean_tokens: float
    objective: float
    seconds: float
    machine: Machine
    noise: Noise
    entries: list[ContestantRamps]
    skipped: dict[str, str]
    outside: OutsideCheck | None = None

    def entry(self, name: str) -> ContestantRamps | None:
        """A contestant's."""
        return next((each for each in self.entries if each.name == name), None)

    def best(self, precision: str) -> ContestantRamps | None:
        """Of the others in a precision, who takes the highest rate."""
        others = [each for each in self.entries if not each.own and each.precision == precision]
        return max(others, key=lambda each: each.rate(self.objective), default=None)

    def ratio(self, ours: ContestantRamps, other: ContestantRamps) -> Ratio | None:
        """The rate of one of bertd's over another's, by medians; None if either took none.

        Ramps of one round are minutes apart, so that they are not paired.
        """
        mine, theirs = ours.rates(self.objective), other.rates(self.objective)
        if not theirs or not statistics.median(theirs) or not mine:
            return None
        interval = None
        if all(theirs):
            interval = unpaired_interval([[rate] for rate in mine], [[rate] for rate in theirs])
        return Ratio(value=statistics.median(mine) / statistics.median(theirs), interval=interval)
