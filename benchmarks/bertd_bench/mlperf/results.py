"""What `bertd bench mlperf` saw, and its tables."""

from __future__ import annotations

from pydantic import BaseModel

from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise
from bertd_bench.mlperf.accuracy import Accuracy
from bertd_bench.mlperf.logs import Performance
from bertd_bench.mlperf.settings import SERVER

UNOFFICIAL = (
    "Not an official MLPerf result: MLPerf's load generator and scenarios, but another model, "
    "other texts and another metric of accuracy, and nobody has reviewed it."
)
_PERCENTILE = {"SingleStream": "90.00", "MultiStream": "99.00", "Server": "99.00"}


class Sought(BaseModel, frozen=True):
    """One run of the search: queries a second, and whether LoadGen called it valid."""

    rate: float
    valid: bool


class Scenario(BaseModel, frozen=True):
    """One scenario of one system.

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
    search: list[Sought] = []
    retries: int = 0


class Tested(BaseModel, frozen=True):
    """One system."""

    name: str
    scenarios: list[Scenario]


class MlperfReport(BaseModel, frozen=True):
    """One run.

    Attributes:
        command: what makes it again.
        preset: its name.
        limit: seconds, of Server.
        library: how many texts there are.
    """

    benchmark: str = "mlperf"
    official: bool = False
    note: str = UNOFFICIAL
    command: str
    preset: str
    seconds: float
    limit: float
    library: int
    mean_tokens: float
    model: str
    task: str
    threads: int
    loadgen: str
    machine: Machine
    noise: Noise
    systems: list[Tested]

    @property
    def failed(self) -> list[str]:
        """Runs that LoadGen calls invalid, or with wrong answers."""
        return [
            f"{system.name}, {each.name}"
            for system in self.systems
            for each in system.scenarios
            if not (each.performance.valid and each.accuracy.passed)
        ]


def to_markdown(report: MlperfReport) -> str:
    """Tables for the documentation."""
    lines = [
        f"**{report.note}**",
        "",
        f"{report.model} ({report.task}), texts of {report.mean_tokens:.0f} tokens on average, "
        f"{report.library} of them; {report.threads} threads, {report.machine.cpu}; LoadGen "
        f"{report.loadgen}, which shares the cores. Preset {report.preset}: at least "
        f"{report.seconds:.0f} s a run. In Server 99 % of the queries must be answered within "
        f"{report.limit * 1e3:.0f} ms.",
        "",
        "| system | scenario | LoadGen says | result | p50 | p90 | p99 | answers equal | from eager |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_row(system.name, each) for system in report.systems for each in system.scenarios]
    lines += ["", report.noise.verdict, "", f"`{report.command}`"]
    return "\n".join(lines) + "\n"


def _row(system: str, each: Scenario) -> str:
    performance, accuracy = each.performance, each.accuracy
    cells = [_ms(performance, name) for name in ("50.00", "90.00", "99.00")]
    if each.name == "Offline":  # one query: its latency is the run's duration
        cells = ["", "", ""]
    distance = "" if accuracy.difference is None else f"{accuracy.difference:.1e}"
    verdict = performance.verdict if performance.valid else f"**{performance.verdict}**"
    return (
        f"| {system} | {each.name} | {verdict} | {_result(each)} | {' | '.join(cells)} "
        f"| {accuracy.equal} of {accuracy.expected} | {distance} |"
    )


def _result(each: Scenario) -> str:
    """The scenario's own metric."""
    if each.name == SERVER:
        return f"{each.performance.rate:.1f} queries/s"
    if each.name == "Offline":
        return f"{each.performance.rate:.1f} texts/s"
    name = _PERCENTILE[each.name]
    return f"p{name.removesuffix('.00')} {_ms(each.performance, name)}"


def _ms(performance: Performance, percentile: str) -> str:
    found = performance.percentiles.get(percentile)
    return "" if found is None else f"{found / 1e6:.1f} ms"
