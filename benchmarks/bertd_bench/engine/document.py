"""Results of the engine's benchmarks as Markdown, for the terminal and for docs/lab/engine.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they load torch, which would count in the figures of memory
    from bertd_bench.engine.arrangements import Arrangements
    from bertd_bench.engine.attention import Matrix
    from bertd_bench.engine.endurance import IdentityReport, MemoryReport
    from bertd_bench.engine.speed import EngineReport
    from bertd_bench.harness.machine import Machine


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _where(machine: Machine) -> str:
    load = f"load {machine.load_average[0]:.2f} before the run"
    versions = f"ONNX Runtime {machine.versions['onnxruntime']}"
    return f"{machine.cpu}, {machine.usable_threads} usable threads, {versions}, {load}"


def _mib(amount: float) -> str:
    return f"{amount / 2**20:.0f}"


def attention(matrix: Matrix) -> str:
    """One table per size and number of threads: the baseline's time, and ratios to it."""
    blocks = []
    for hidden, threads in dict.fromkeys((row.hidden, row.threads) for row in matrix.rows):
        rows = [row for row in matrix.rows if (row.hidden, row.threads) == (hidden, threads)]
        baseline, *names = dict.fromkeys(name for row in rows for name in row.speed)
        lines = [
            f"Hidden size {hidden}, {threads} thread{'s' if threads > 1 else ''}:",
            "",
            f"| | {baseline} | {' | '.join(names)} |",
            f"|---|{'---:|' * (len(names) + 1)}",
        ]
        for row in rows:
            cells = [f"{row.speed[name]:.2f}x" if name in row.speed else "" for name in names]
            lines.append(f"| {row.mix} | {row.baseline_ms:.2f} ms | {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def speed(report: EngineReport) -> str:
    """Padding, efficiency, lanes and operators."""
    padding = _table(
        ["ms", *report.padding[0].milliseconds, "mixed / equal", "together / apart"],
        [
            [
                tax.session,
                *(f"{value:.2f}" for value in tax.milliseconds.values()),
                f"{tax.mixed_to_equal:.2f}",
                f"{tax.together_to_apart:.2f}",
            ]
            for tax in report.padding
        ],
    )
    lanes = _table(
        ["ms of a batch", "lane alone", "lane, all busy", "wide", "lanes / wide, batches a second"],
        [
            [
                row.batch,
                f"{row.lane_alone:.2f}",
                f"{row.lane_busy:.2f}",
                f"{row.wide:.2f}",
                f"{row.lanes_to_wide:.2f}x",
            ]
            for row in report.lane_rows
        ],
    )
    run = f"{report.model}, {report.precision}, {report.threads} threads, {report.lanes} lanes"
    blocks = [f"{run}; {_where(report.machine)}.", padding, lanes]
    if report.efficiency:
        rows = [
            [
                each.batch,
                *(f"{rate:.0f}" for rate in each.gemm.values()),
                f"{each.engine:.0f}",
                f"{each.engine_linear:.0f}",
                f"{each.ratio:.2f}",
                "" if each.ratio_to_own is None else f"{each.ratio_to_own:.2f}",
            ]
            for each in report.efficiency
        ]
        libraries = list(report.efficiency[0].gemm)
        own = "engine / ONNX Runtime's products"
        head = ["GFLOP/s", *libraries, "engine", "its linear layers alone"]
        head += ["engine / best of numpy and torch", own]
        blocks.append(_table(head, rows))
    kinds = list(dict.fromkeys(kind for each in report.operators.values() for kind in each))[:8]
    shares = [
        [name, *(f"{100 * each.get(kind, 0):.1f} %" for kind in kinds)]
        for name, each in report.operators.items()
    ]
    blocks.append(_table(["share of operators, one thread", *kinds], shares))
    return "\n\n".join(blocks)


def arrangements(report: Arrangements) -> str:
    """Sessions and arenas, in MiB and milliseconds."""
    sessions = _table(
        [
            "sessions",
            "load, s",
            "own MiB",
            "MiB with mapped pages",
            "lane, ms",
            "lane, all busy, ms",
            "wide, ms",
            "CPU of a wide run, ms",
            "idle CPU, ms/s",
        ],
        [
            [
                each.name,
                f"{each.load_seconds:.2f}",
                _mib(each.anonymous),
                _mib(each.with_mapped),
                f"{each.lane:.1f}",
                f"{each.lane_busy:.1f}",
                f"{each.wide:.1f}",
                f"{each.cpu_a_wide_run:.1f}",
                f"{1e3 * each.idle_cpu:.1f}",
            ]
            for each in report.sessions
        ],
    )
    arenas = _table(
        ["arena", "own MiB after 60 batches", "after 600", "tokens/s on two lanes"],
        [
            [each.name, _mib(each.early), _mib(each.late), f"{each.tokens_a_second:,.0f}"]
            for each in report.arenas
        ],
    )
    head = f"{report.model}, {report.threads} threads; {_where(report.machine)}."
    return "\n\n".join([head, sessions, *([arenas] if report.arenas else [])])


def memory(report: MemoryReport) -> str:
    """One sentence."""
    limit = f", limit {_mib(report.memory_limit)} MiB" if report.memory_limit else ""
    return (
        f"{report.model}, {report.precision}, {report.lanes} lanes{limit}: "
        f"{_mib(report.first_bytes)} MiB after every shape and token, "
        f"{_mib(report.warm_bytes)} MiB after 500 random batches, "
        f"{_mib(report.samples_bytes[-1])} MiB after "
        f"{report.batches:,} more of up to {report.max_batch_tokens} tokens "
        f"({100 * report.growth:+.1f} %), {_mib(max(report.samples_bytes))} MiB at most."
    )


def identity(report: IdentityReport) -> str:
    """One sentence."""
    return (
        f"{report.model}, {report.precision}: of {report.texts:,} answers in {report.batches:,} "
        f"random batches, on {report.lanes} lanes at once and on the wide session with "
        f"{report.threads} threads, {report.different} had other bits than the text alone."
    )
