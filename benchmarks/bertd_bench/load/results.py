"""What a run of `bertd bench load` saw, with every sample, and the file that holds it."""

from __future__ import annotations

import statistics
from typing import Literal

from pydantic import BaseModel

from bertd_bench.harness.intervals import Interval, ratio_interval
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.load.contestants import EAGER, OURS
from bertd_bench.load.ramp import Step, held

TARGET = 2.5  # times the best of eager behind the same front end


class Ramp(BaseModel, frozen=True):
    """One ramp of one contestant.

    Attributes:
        round: counted from 0.
        capacity: texts a second from which it set out.
        steps: in the order in which they were made.
    """

    round: int
    capacity: float
    steps: list[Step]


class ContestantRamps(BaseModel, frozen=True):
    """One contestant.

    Attributes:
        what: it is, in a few words.
        difference: of its vectors from eager's, at most, before it was timed.
    """

    name: str
    what: str
    difference: float
    ramps: list[Ramp]

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

    @property
    def ours(self) -> ContestantRamps | None:
        """What bertd has shown."""
        return next((each for each in self.entries if each.name == OURS), None)

    @property
    def eager(self) -> ContestantRamps | None:
        """The way to batch for eager that took the highest rate."""
        ways = [each for each in self.entries if each.name.startswith(EAGER)]
        return max(ways, key=lambda each: each.rate(self.objective), default=None)

    def ratio(self, other: ContestantRamps) -> float | None:
        """The rate of bertd over another's; None if either took none."""
        if self.ours is None or not other.rate(self.objective):
            return None
        return self.ours.rate(self.objective) / other.rate(self.objective)

    def interval(self, other: ContestantRamps) -> Interval | None:
        """95 % interval of that ratio, over the rounds that both had; None if unknown."""
        if self.ours is None:
            return None
        ours, theirs = self.ours.rates(self.objective), other.rates(self.objective)
        rounds = min(len(ours), len(theirs))
        if not all(theirs[:rounds]):
            return None
        return ratio_interval([[rate] for rate in ours[:rounds]], [[r] for r in theirs[:rounds]])
