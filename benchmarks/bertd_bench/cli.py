"""`bertd bench`: measurements on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from bertd_bench.compare.cli import COMMANDS as COMPARISON_COMMANDS
from bertd_bench.drills.cli import COMMANDS as DRILL_COMMANDS
from bertd_bench.engine.cli import COMMANDS as ENGINE_COMMANDS
from bertd_bench.hardware.cli import COMMANDS as HARDWARE_COMMANDS
from bertd_bench.harness.cli import COMMANDS as HARNESS_COMMANDS
from bertd_bench.install import commands
from bertd_bench.load.cli import COMMANDS as GOODPUT_COMMANDS
from bertd_bench.load.serve_cli import COMMANDS as LOAD_COMMANDS
from bertd_bench.mlperf.cli import COMMANDS as MLPERF_COMMANDS
from bertd_bench.regression.cli import COMMANDS as REGRESSION_COMMANDS
from bertd_bench.report.cli import COMMANDS as PAGE_COMMANDS

if TYPE_CHECKING:
    from bertd_bench.exports.exportcost import Size
    from bertd_bench.exports.exports import ExportSubject
    from bertd_bench.harness.report import Report

_Command = TypeVar("_Command", bound=Callable[..., None])
_Name = TypeVar("_Name", bound=str)


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file that could not be written, before a minute of measuring."""
    del ctx, param
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.absolute().parent} is not a folder")
    return path


def _common(command: _Command) -> _Command:
    for option in (
        click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores."),
        click.option(
            "--json",
            "json_path",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            callback=_in_a_folder,
            help="Also write the results, raw samples included.",
        ),
        click.option(
            "--model",
            metavar="DIR",
            help="A checkpoint with mean pooling and normalising. Default: all-MiniLM-L6-v2.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def bench() -> None:
    """Measure bertd, and what it is compared with, on this machine."""


for each in (
    *COMPARISON_COMMANDS,
    *DRILL_COMMANDS,
    *ENGINE_COMMANDS,
    *HARNESS_COMMANDS,
    *LOAD_COMMANDS,
    *HARDWARE_COMMANDS,
    *PAGE_COMMANDS,
    *REGRESSION_COMMANDS,
):
    bench.add_command(each)
for each in (*GOODPUT_COMMANDS, *MLPERF_COMMANDS):
    bench.add_command(each)
bench.add_command(commands.costs)
bench.add_command(commands.simulate)
bench.add_command(commands.footprint)
bench.add_command(commands.footprint_docs)


@bench.command("cold-start")
@_common
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True)
def cold_start(model: str | None, json_path: Path | None, threads: int | None, runs: int) -> None:
    """Time exec to first answer: `bertd serve` against a PyTorch script."""
    from bertd_bench.install import coldstart

    _run(lambda: coldstart.cold_start(model, threads, runs), json_path)


@bench.command("export-cost")
@click.option("--size", type=click.Choice(["tiny", "base", "large"]), default="base")
def export_cost(size: Size) -> None:
    """Time an export of BERT with random weights, and measure its memory."""
    from bertd_bench.exports.exportcost import measure_export

    cost = measure_export(size)
    click.echo(f"time    {cost.seconds:.1f} s")
    click.echo(f"memory  {cost.peak_bytes / 2**30:.2f} GiB at most")
    click.echo(f"bundle  {cost.bundle_bytes / 2**30:.2f} GiB")


@bench.command()
@click.option(
    "--family", "families", multiple=True, help="Random weights; default: every tested family."
)
@click.option("--task", "tasks", multiple=True, help="Default: every task.")
@click.option("--precision", "precisions", multiple=True, help="Default: every precision.")
@click.option("--size", default="base", show_default=True, help="tiny, mini, base or large.")
@click.option(
    "--checkpoint",
    "folders",
    multiple=True,
    metavar="[NAME=]DIR",
    help="A checkpoint of your own, instead of random weights.",
)
@click.option("--default-model", is_flag=True, help="The embedded model, all-MiniLM-L6-v2.")
@click.option("--allow-pickle", is_flag=True, help="As for `bertd export`.")
@click.option("--cases", multiple=True, help="Such as '8 tokens' or '16 mixed'; default: all.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    help="Write the results here, after every row.",
)
@click.option("--resume", is_flag=True, help="Go on with the rows that --json has.")
@click.option("--again", is_flag=True, help="With --resume: measure disturbed rows anew.")
def exports(  # noqa: PLR0913, PLR0917 - click's parameters
    families: tuple[str, ...],
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    size: str,
    folders: tuple[str, ...],
    default_model: bool,
    allow_pickle: bool,
    cases: tuple[str, ...],
    threads: int | None,
    rounds: int,
    json_path: Path | None,
    resume: bool,
    again: bool,
) -> None:
    """Export families and tasks; print parity, size and speed as a Markdown table."""
    from bertd_bench.contestants import checkpoints
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.exports import exports as matrix
    from bertd_bench.exports import exporttable, speed

    subjects = [_own(folder) for folder in folders]
    if default_model:
        subjects.append(matrix.default_subject())
    if families or tasks or not subjects:
        subjects += matrix.random_subjects(
            _chosen("--family", families, checkpoints.FAMILIES),
            _chosen("--task", tasks, matrix.TASKS),
            _chosen("--size", (size,), tuple(checkpoints.SIZES))[0],
        )
    if resume and json_path is None:
        raise click.UsageError("--resume needs the --json FILE to go on with")
    plan = matrix.ExportPlan(
        subjects,
        _chosen("--precision", precisions, matrix.PRECISIONS),
        _chosen("--cases", cases, tuple(speed.CASES)),
        rounds,
        threads,
        allow_pickle,
    )
    try:
        there = resume and json_path is not None and json_path.exists()
        earlier = matrix.read_matrix(json_path) if there and json_path else None
        result = matrix.measure(
            plan,
            matrix.begin(plan, earlier, again=again),
            progress=lambda line: click.echo(line, err=True),
            keep=lambda rows: matrix.write_matrix(rows, json_path) if json_path else None,
        )
    except (BenchError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(exporttable.to_markdown(result))


@bench.command("first-rows")
@click.option("--size", default="base", show_default=True, help="tiny, mini, base or large.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
)
def first_rows(size: str, threads: int | None, rounds: int, json_path: Path | None) -> None:
    """Time a classifier with its last layer for [CLS] rows alone, and for all rows."""
    from bertd_bench.contestants import checkpoints
    from bertd_bench.exports import firstrows

    [size] = _chosen("--size", (size,), tuple(checkpoints.SIZES))
    result = firstrows.measure(size, threads, rounds)
    click.echo(firstrows.render(result))
    if json_path is not None:
        json_path.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")


@bench.command("export-docs")
@click.option(
    "--results",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("benchmarks/results"),
    show_default=True,
    help="Folder of exports-*.json, int8-*.json and first-rows.json.",
)
@click.option(
    "--document",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("docs/export.md"),
    show_default=True,
    help="The file to rewrite.",
)
def export_docs(results: Path, document: Path) -> None:
    """Write the results of `exports`, `int8` and `first-rows` into the document on exports."""
    from bertd_bench.docs import documents, sections
    from bertd_bench.exports import exporttable, firstrows, int8
    from bertd_bench.exports.exports import read_matrix

    _rewrite(
        document,
        sections.begin("export-docs", "the exports that follow"),
        lambda: exporttable.render(
            [
                (documents.link(path, document), read_matrix(path))
                for path in sorted(results.glob("exports-*.json"))
            ]
        ),
    )
    _rewrite(
        document,
        sections.begin("export-docs", "the comparisons of int8 that follow"),
        lambda: int8.render(
            [
                (documents.link(path, document), int8.read(path))
                for path in sorted(results.glob("int8-*.json"))
            ]
        ),
    )
    path = results / "first-rows.json"
    _rewrite(
        document,
        sections.begin("export-docs", "the first rows that follow"),
        lambda: firstrows.render(firstrows.read(path), documents.link(path, document)),
    )


def _chosen(option: str, values: tuple[str, ...], known: tuple[_Name, ...]) -> tuple[_Name, ...]:
    """The values of a choice whose names are known only now; all of them if there are none."""
    for value in values:
        if value not in known:
            raise click.UsageError(f"{option} {value} is not one of: {'; '.join(known)}")
    return tuple(name for name in known if name in values) if values else known


def _own(argument: str) -> ExportSubject:
    from bertd_bench.exports.exports import ExportSubject

    name, given, path = argument.rpartition("=")
    folder = Path(path)
    if not folder.is_dir():
        raise click.UsageError(f"--checkpoint {argument}: {path} is not a folder")
    return ExportSubject(name if given else folder.resolve().name, None, folder)


def _rewrite(document: Path, opening: str, render: Callable[[], str]) -> None:
    """Put what is rendered behind a document's opening comment."""
    from bertd_bench.docs import documents, sections

    documents.rewrite(document, lambda text: sections.replaced(text, opening, render()))


@bench.command()
@click.option(
    "--checkpoint",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkpoint that makes embeddings. Default: all-MiniLM-L6-v2.",
)
@click.option("--random", "size", metavar="SIZE", help="BERT with random weights instead.")
@click.option(
    "--texts",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts to judge on. Default: the built-in ones that calibration does not see.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    help="Also write the results.",
)
def int8(  # noqa: PLR0913, PLR0917 - click's parameters
    checkpoint: Path | None,
    size: str | None,
    texts: Path | None,
    threads: int | None,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Compare int8 with fp32, PyTorch eager and ONNX Runtime's own dynamic int8."""
    from bertd_export.errors import ExportError

    from bertd_bench.contestants import checkpoints
    from bertd_bench.exports import int8 as comparison

    if size is not None and (checkpoint is not None or size not in checkpoints.SIZES):
        known = ", ".join(checkpoints.SIZES)
        raise click.UsageError(f"--random takes one of {known}, and no --checkpoint beside it")
    try:
        result = comparison.measure(
            checkpoint,
            size,
            texts,
            threads=threads,
            rounds=rounds,
            progress=lambda line: click.echo(line, err=True),
        )
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    click.echo(comparison.to_markdown(result))
    if json_path is not None:
        json_path.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _run(benchmark: Callable[[], Report], json_path: Path | None) -> None:
    from bertd.bundle import BundleError
    from bertd_export.errors import ExportError
    from bertd_server.models.default_model import NoDefaultModelError
    from rich.console import Console

    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.harness.report import print_report, write_json

    try:
        report = benchmark()
    except (BenchError, BundleError, ExportError, NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    print_report(report, Console())
    if json_path is not None:
        write_json(report, json_path)
