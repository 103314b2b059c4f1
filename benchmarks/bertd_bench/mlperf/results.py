"""What `bertd bench mlperf` saw."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.mlperf.accuracy import Accuracy
from bertd_bench.mlperf.logs import Performance

UNOFFICIAL = (
    "Not an official MLPerf result: MLPerf's load generator and scenarios, but another model, "
    "other texts and another metric of accuracy, and nobody has reviewed it."
)


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
