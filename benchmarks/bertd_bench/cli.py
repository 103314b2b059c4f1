"""`bertd bench`: how bertd compares with PyTorch eager on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from bertd_bench import commands

if TYPE_CHECKING:
    from bertd_bench.exportcost import Size
    from bertd_bench.report import Report

_Command = TypeVar("_Command", bound=Callable[..., None])


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
    """Compare bertd with PyTorch eager on this machine."""


bench.add_command(commands.costs)
bench.add_command(commands.simulate)


@bench.command()
@_common
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
def compare(model: str | None, json_path: Path | None, threads: int | None, rounds: int) -> None:
    """Time single texts and a mixed batch, tokenisation included."""
    from bertd_bench import compare as comparison

    def progress(case: str) -> None:
        click.echo(f"timing {case}", err=True)

    _run(lambda: comparison.compare(model, threads, rounds, progress), json_path)


@bench.command("cold-start")
@_common
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True)
def cold_start(model: str | None, json_path: Path | None, threads: int | None, runs: int) -> None:
    """Time exec to first answer: `bertd serve` against a PyTorch script."""
    from bertd_bench import compare as comparison

    _run(lambda: comparison.cold_start(model, threads, runs), json_path)


@bench.command("export-cost")
@click.option("--size", type=click.Choice(["tiny", "base", "large"]), default="base")
def export_cost(size: Size) -> None:
    """Time an export of BERT with random weights, and measure its memory."""
    from bertd_bench.exportcost import measure_export

    cost = measure_export(size)
    click.echo(f"time    {cost.seconds:.1f} s")
    click.echo(f"memory  {cost.peak_bytes / 2**30:.2f} GiB at most")
    click.echo(f"bundle  {cost.bundle_bytes / 2**30:.2f} GiB")


@bench.command()
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("benchmarks/results/compare-minilm.json"),
    show_default=True,
    help="Results of `bertd bench compare`.",
)
@click.option(
    "--readme",
    "readme_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("README.md"),
    show_default=True,
    help="The file to rewrite.",
)
def readme(json_path: Path, readme_path: Path) -> None:
    """Write the results of a comparison into README's section of measured numbers."""
    from bertd_bench import readme as section
    from bertd_bench.report import read_json

    link = Path(os.path.relpath(json_path, readme_path.parent)).as_posix()
    try:
        before = readme_path.read_text(encoding="utf-8")
        after = section.with_section(before, section.render(read_json(json_path), link))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    readme_path.write_text(after, encoding="utf-8")
    click.echo(f"{readme_path} is {'unchanged' if after == before else 'rewritten'}")


@bench.command()
@click.option("--family", "families", multiple=True, help="Random weights; default: every family.")
@click.option("--task", "tasks", multiple=True, help="Default: every task.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32", "int8"),
    show_default=True,
)
@click.option("--size", default="base", show_default=True, help="tiny, mini, base or large.")
@click.option(
    "--checkpoint",
    "folders",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkpoint of your own, instead of random weights.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "json_path", metavar="FILE", type=click.Path(path_type=Path))
def exports(  # noqa: PLR0913, PLR0917 - click's parameters
    families: tuple[str, ...],
    tasks: tuple[str, ...],
    precisions: tuple[str, ...],
    size: str,
    folders: tuple[Path, ...],
    threads: int | None,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Export families and tasks; print parity, size and speed as a Markdown table."""
    from bertd_bench import checkpoints
    from bertd_bench import exports as matrix

    for chosen, known, what in (
        (families, checkpoints.FAMILIES, "--family"),
        (tasks, matrix.TASKS, "--task"),
        ((size,), tuple(checkpoints.SIZES), "--size"),
    ):
        for value in chosen:
            if value not in known:
                raise click.UsageError(f"{what} {value} is not one of {', '.join(known)}")
    subjects = [matrix.Subject(folder.resolve().name, None, folder) for folder in folders]
    if families or tasks or not folders:
        wanted = [task for task in matrix.TASKS if not tasks or task in tasks]
        subjects += matrix.random_subjects(families or checkpoints.FAMILIES, wanted)
    result = matrix.measure(
        subjects,
        precisions,
        size=size,
        threads=threads,
        rounds=rounds,
        progress=lambda line: click.echo(line, err=True),
    )
    click.echo(matrix.to_markdown(result))
    if json_path is not None:
        json_path.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _run(benchmark: Callable[[], Report], json_path: Path | None) -> None:
    from bertd.bundle import BundleError
    from bertd_export.errors import ExportError
    from bertd_server.default_model import NoDefaultModelError
    from rich.console import Console

    from bertd_bench.contestants import BenchError
    from bertd_bench.report import print_report, write_json

    try:
        report = benchmark()
    except (BenchError, BundleError, ExportError, NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    print_report(report, Console())
    if json_path is not None:
        write_json(report, json_path)
