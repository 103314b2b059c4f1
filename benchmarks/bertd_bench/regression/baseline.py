"""What a run of `bertd bench regress` is, and how two of them compare.

The kernel is numpy's alone (:mod:`bertd_bench.harness.noise`), so that no change of ours, of ONNX
Runtime or of torch hides in it. A case regressed if its whole interval lies beyond the bound.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bertd_bench.harness.intervals import Interval, change_interval
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.harness.rounds import SystemTimes


class Baseline(BaseModel, frozen=True):
    """One run.

    Attributes:
        model: that was measured.
        threads: of wide runs.
        noise: what was seen of others, and the kernel's times, round by round.
        cases: times of each case, in the same rounds.
    """

    benchmark: Literal["regress"] = "regress"
    command: str
    model: str
    threads: int
    machine: Machine
    noise: Noise
    cases: list[SystemTimes]

    def ratio(self, case: SystemTimes) -> float:
        """Time of a case over that of the kernel."""
        return case.median_ms * 1e6 / self.noise.calibration

    def case(self, name: str) -> SystemTimes | None:
        """A case by its name."""
        return next((each for each in self.cases if each.name == name), None)


class Change(BaseModel, frozen=True):
    """How a case changed: its ratio to the kernel now over that of the baseline.

    Attributes:
        value: above 1 is slower.
        interval: 95 % of that, by rounds of both runs.
    """

    name: str
    before: float
    now: float
    interval: Interval | None

    @property
    def value(self) -> float:
        """Above 1 is slower."""
        return self.now / self.before

    def slower_than(self, bound: float) -> bool:
        """Whether it surely is: the whole interval lies beyond."""
        return self.interval is not None and self.interval.low > bound

    def faster_than(self, bound: float) -> bool:
        """Whether it surely gained as much, so that the baseline is out of date."""
        return self.interval is not None and self.interval.high < 1 / bound


def changes(before: Baseline, now: Baseline) -> list[Change]:
    """Of all cases that both have.

    Raises:
        ValueError: they have none in common, or another model.
    """
    if before.model != now.model:
        raise ValueError(
            f"the baseline is of {before.model}, this run of {now.model}: "
            "measure the same model, or write a baseline of this one with --update"
        )
    found = []
    for case in now.cases:
        old = before.case(case.name)
        if old is not None:
            found.append(
                Change(
                    name=case.name,
                    before=before.ratio(old),
                    now=now.ratio(case),
                    interval=change_interval(
                        (old.rounds_ns, before.noise.calibration_ns),
                        (case.rounds_ns, now.noise.calibration_ns),
                    ),
                )
            )
    if not found:
        raise ValueError("the baseline has none of these cases: write one with --update")
    return found


def another_kind(before: Machine, now: Machine) -> str | None:
    """Why ratios of one machine say nothing of the other; None where they do."""
    for name in ("architecture", "cpu", "usable_threads", "features"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            return f"{name} was {_said(old)} and is {_said(new)}"
    return None


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
