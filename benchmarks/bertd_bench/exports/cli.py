"""`bertd bench exports`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import click

from bertd_bench import options

_Name = TypeVar("_Name", bound=str)


@click.command()
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
@options.threads
@options.rounds(5)
@options.json_path
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
) -> None:
    """Export families and tasks; print parity, size and speed as a Markdown table."""
    from bertd_server.models.default_model import NoDefaultModelError, checkpoint_folder

    from bertd_bench.contestants import checkpoints
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.exports import document, speed
    from bertd_bench.exports import exports as table
    from bertd_bench.harness import results

    subjects = [table.ExportSubject(name, None, path) for name, path in map(_own, folders)]
    if default_model:
        try:
            subjects.append(table.ExportSubject("all-MiniLM-L6-v2", None, checkpoint_folder()))
        except NoDefaultModelError as error:
            raise click.ClickException(str(error)) from error
    if families or tasks or not subjects:
        subjects += table.random_subjects(
            _chosen("--family", families, checkpoints.FAMILIES),
            _chosen("--task", tasks, table.TASKS),
            _chosen("--size", (size,), tuple(checkpoints.SIZES))[0],
        )
    plan = table.ExportPlan(
        subjects,
        _chosen("--precision", precisions, table.PRECISIONS),
        _chosen("--cases", cases, tuple(speed.CASES)),
        rounds,
        threads,
        allow_pickle,
    )
    try:
        result = table.measure(
            plan,
            progress=options.progress,
            keep=lambda rows: results.write(rows, json_path) if json_path else None,
        )
    except (BenchError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(document.to_markdown(result))
    if all(row.refused for row in result.rows):
        raise click.ClickException("nothing could be exported: the table says why")


def _chosen(option: str, values: tuple[str, ...], known: tuple[_Name, ...]) -> tuple[_Name, ...]:
    """The values of a choice whose names are known only now; all of them if there are none."""
    for value in values:
        if value not in known:
            raise click.UsageError(f"{option} {value} is not one of: {'; '.join(known)}")
    return tuple(name for name in known if name in values) if values else known


def _own(argument: str) -> tuple[str, Path]:
    name, given, path = argument.rpartition("=")
    folder = Path(path)
    if not folder.is_dir():
        raise click.UsageError(f"--checkpoint {argument}: {path} is not a folder")
    return name if given else folder.resolve().name, folder
