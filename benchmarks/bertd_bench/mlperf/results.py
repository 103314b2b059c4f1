"""What `bertd bench mlperf` saw: LoadGen's word on each scenario, and whether answers were right.

::

    accuracy log ──bytes──> equal to those of the reference: the engine alone, one text at a time
                   float32─> within 1e-4 of eager's vectors, once both have length 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from bertd_bench.contestants.eager import TOLERANCE, distance
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.mlperf.logs import Performance

UNOFFICIAL = (
    "Not an official MLPerf result: MLPerf's load generator and scenarios, but another model, "
    "other texts and another metric of accuracy, and nobody has reviewed it."
)


class Accuracy(BaseModel, frozen=True):
    """What an accuracy run showed.

    Attributes:
        answers: in the log.
        expected: that should be there.
        equal: bit for bit the reference's.
        difference: largest of any element from eager's, both of length 1.
    """

    answers: int
    expected: int
    equal: int
    difference: float

    @property
    def passed(self) -> bool:
        """Whether all are there and right."""
        whole = self.answers == self.expected == self.equal
        return whole and self.difference <= TOLERANCE


def check(
    answers: Mapping[int, bytes],
    reference: Sequence[bytes],
    expected: int,
    eager: NDArray[np.float32],
) -> Accuracy:
    """Compare the answers of a log.

    Args:
        answers: by the number of their sample.
        reference: of every sample.
        expected: how many answers there should be.
        eager: vectors of the first samples, float32 `[samples, dimensions]`.
    """
    equal = sum(answer == reference[sample] for sample, answer in answers.items())
    apart = [
        distance(np.frombuffer(answer, "<f4")[None], eager[sample][None])
        for sample, answer in answers.items()
        if sample < len(eager)
    ]
    difference = max(apart, default=0.0)
    return Accuracy(answers=len(answers), expected=expected, equal=equal, difference=difference)


class TriedRate(BaseModel, frozen=True):
    """One run of the search: queries a second, and whether LoadGen called it valid."""

    rate: float
    valid: bool


class ScenarioResult(BaseModel, frozen=True):
    """One scenario.

    Attributes:
        performance: LoadGen's word.
        accuracy: of its accuracy run.
        target: queries a second of Server; None elsewhere.
        search: the runs that found it.
        retries: calls that were made again after a refusal, in the performance run.
    """

    name: str
    performance: Performance
    accuracy: Accuracy
    target: float | None = None
    search: list[TriedRate] = []
    retries: int = 0


class MlperfReport(BaseModel, frozen=True):
    """One run.

    Attributes:
        command: what makes it again.
        preset: its name.
        limit: seconds, of Server.
        library: how many texts there are.
    """

    benchmark: Literal["mlperf"] = "mlperf"
    official: bool = False
    note: str = UNOFFICIAL
    command: str
    preset: str
    seconds: float
    limit: float
    library: int
    mean_tokens: float
    model: str
    threads: int
    loadgen: str
    machine: Machine
    noise: Noise
    scenarios: list[ScenarioResult]

    @property
    def failed(self) -> list[str]:
        """Runs that LoadGen calls invalid, or with wrong answers."""
        return [
            each.name
            for each in self.scenarios
            if not (each.performance.valid and each.accuracy.passed)
        ]
