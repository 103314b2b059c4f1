"""What a comparison found: every raw sample, and the ratios that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from bertd_bench.harness.intervals import Ratio, ratio_interval
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.harness.results import named, read
from bertd_bench.harness.rounds import SystemTimes


class ContestantTimes(BaseModel, frozen=True):
    """One contestant in one case.

    Attributes:
        precision: fp32, bf16 or int8.
        own: whether it is bertd.
        environment: number of the interpreter that ran it.
        handling: how it was handed the texts, the fastest of `tried`.
        tried: median milliseconds of a few calls in each way.
        difference: the largest distance from eager's answer to a text, over that one's length.
        cosine: the lowest with eager's answer to a text.
        measured: times, and cores used.
    """

    precision: str
    own: bool
    environment: int
    handling: str
    tried: dict[str, float]
    difference: float
    cosine: float
    measured: SystemTimes

    @property
    def name(self) -> str:
        """Of the contestant."""
        return self.measured.name


class Case(BaseModel, frozen=True):
    """All contestants that took turns with one another on one sample.

    Attributes:
        name: such as "8 tokens".
        lengths: tokens of each text of the call.
        refused: contestants whose answers differ too much, or that failed here; why.
        noise: what was seen of others meanwhile.
    """

    name: str
    lengths: list[int]
    rows: list[ContestantTimes]
    refused: dict[str, str]
    noise: Noise

    def row(self, name: str) -> ContestantTimes | None:
        """A contestant's row."""
        return next((row for row in self.rows if row.name == name), None)


def ratio(peer: ContestantTimes, ours: ContestantTimes) -> Ratio:
    """How many times as fast `ours` was as `peer`, in the rounds that they shared."""
    return Ratio(
        value=peer.measured.median_ms / ours.measured.median_ms,
        interval=ratio_interval(peer.measured.rounds_ns, ours.measured.rounds_ns),
    )


class Subject(BaseModel, frozen=True):
    """One model, task and number of threads.

    Attributes:
        skipped: peers that could not be had; why.
        cases: a case is there several times if the contestants did not fit into memory together.
    """

    model: str
    task: str
    threads: int
    skipped: dict[str, str]
    cases: list[Case]


class Comparison(BaseModel, frozen=True):
    """One run of `bertd bench compare`.

    Attributes:
        command: what makes it again.
        note: what a reader must know of this result besides; stands above its tables.
        environments: versions of each interpreter's packages.
    """

    benchmark: Literal["compare"] = "compare"
    command: str
    note: str = ""
    rounds: int
    machine: Machine
    environments: list[dict[str, str]]
    subjects: list[Subject]

    @property
    def noisy(self) -> list[str]:
        """Cases with a noisy machine, and why."""
        return [
            f"{subject.model}, {case.name}: {'; '.join(case.noise.reasons)}"
            for subject in self.subjects
            for case in subject.cases
            if case.noise.noisy
        ]


def committed(results: Path) -> list[tuple[str, Comparison]]:
    """The comparisons in a folder of results, by their files' names, the standard one first.

    Raises:
        OSError: a file cannot be read.
        ValueError: one is not of `bertd bench compare`.
    """
    paths = named(results, "compare*.json*")
    return [(path.name, read(path, Comparison, "compare")) for path in paths]
