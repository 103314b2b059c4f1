"""The table of docs/lab/mlperf.md."""

from __future__ import annotations

from pathlib import Path

from bertd_bench.docs import Section
from bertd_bench.harness.results import read
from bertd_bench.mlperf.logs import Performance
from bertd_bench.mlperf.results import MlperfReport, ScenarioResult
from bertd_bench.mlperf.settings import SERVER

_PERCENTILE = {"SingleStream": "90.00", "MultiStream": "99.00"}
_HEADS = "scenario | LoadGen says | result | p50 | p90 | p99 | answers equal | from eager"


def render(report: MlperfReport) -> str:
    """LoadGen's verdicts and numbers, and whether the answers were right."""
    what = (
        f"{report.model}, texts of {report.mean_tokens:.0f} tokens on average, "
        f"{report.library} of them; {report.threads} threads, {report.machine.cpu}; LoadGen "
        f"{report.loadgen}, which shares the cores. Preset {report.preset}: at least "
        f"{report.seconds:g} s a run. In Server 99 % of the queries must be answered within "
        f"{report.limit * 1e3:g} ms."
    )
    lines = [
        f"**{report.note}**",
        "",
        what,
        "",
        f"| {_HEADS} |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_row(each) for each in report.scenarios]
    lines += ["", report.noise.verdict, "", f"`{report.command}`"]
    return "\n".join(lines)


def _row(each: ScenarioResult) -> str:
    performance, accuracy = each.performance, each.accuracy
    cells = [_ms(performance, name) for name in ("50.00", "90.00", "99.00")]
    if each.name == "Offline":  # one query: its latency is the run's duration
        cells = ["", "", ""]
    verdict = performance.verdict if performance.valid else f"**{performance.verdict}**"
    return (
        f"| {each.name} | {verdict} | {_result(each)} | {' | '.join(cells)} "
        f"| {accuracy.equal} of {accuracy.expected} | {accuracy.difference:.1e} |"
    )


def _result(each: ScenarioResult) -> str:
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


def _section(folder: Path) -> str:
    return render(read(folder / "mlperf.json", MlperfReport, "mlperf"))


SECTIONS = (Section("docs/lab/mlperf.md", "mlperf", _section),)
