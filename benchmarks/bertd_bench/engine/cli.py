"""`bertd bench` attention, engine, arrangements, memory, identity, and the tables of docs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

_Report = TypeVar("_Report", bound="BaseModel")

_BUNDLE = click.argument(
    "bundle", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
_ROUNDS = click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
_JSON = click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the results.",
)


@click.command()
@_ROUNDS
@_JSON
def attention(rounds: int, json_path: Path | None) -> None:
    """Time ways to compute attention over a packed batch, each alone."""
    from bertd_bench.engine import attention as contest
    from bertd_bench.engine import document

    _finish(contest.measure(rounds, _progress), document.attention, json_path)


@click.command()
@_BUNDLE
@_ROUNDS
@_JSON
def engine(bundle: Path | None, rounds: int, json_path: Path | None) -> None:
    """Time BUNDLE without transport: padding, lanes, share of the machine's rate.

    Without BUNDLE, the embedded default model.
    """
    from bertd_bench.engine import document, speed

    _finish(speed.measure(_folder(bundle), rounds, _progress), document.speed, json_path)


@click.command()
@_BUNDLE
@click.option("--arenas/--no-arenas", default=True, show_default=True, help="Slow ones too.")
@_JSON
def arrangements(bundle: Path | None, arenas: bool, json_path: Path | None) -> None:
    """Measure memory and time of sessions and arenas in other arrangements than the server's."""
    from bertd_bench.engine import arrangements as processes
    from bertd_bench.engine import document

    report = processes.measure(_folder(bundle), _progress, arenas=arenas)
    _finish(report, document.arrangements, json_path)


@click.command()
@_BUNDLE
@click.option("--batches", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--lanes", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--memory-limit", default="0", show_default=True, help="As for `bertd serve`.")
@_JSON
def memory(
    bundle: Path | None, batches: int, lanes: int, memory_limit: str, json_path: Path | None
) -> None:
    """Run batches of random shapes on lanes and watch the memory of this process."""
    from bertd_server.system.setting_types import parse_bytes

    from bertd_bench.engine import document, endurance

    try:
        limit = parse_bytes(memory_limit)
    except ValueError as error:
        raise click.UsageError(f"--memory-limit: {error}") from error
    report = endurance.memory_growth(_folder(bundle), lanes, batches, limit, _progress)
    _finish(report, document.memory, json_path)


@click.command()
@_BUNDLE
@click.option("--batches", type=click.IntRange(min=1), default=2_000, show_default=True)
@_JSON
def identity(bundle: Path | None, batches: int, json_path: Path | None) -> None:
    """Compare the bits of answers alone with those in random batches, on lanes and wide."""
    from bertd_bench.engine import document, endurance

    report = endurance.identity(_folder(bundle), batches, _progress)
    _finish(report, document.identity, json_path)
    if report.different:
        raise click.ClickException(f"{report.different} answers have other bits")


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _folder(bundle: Path | None) -> Path:
    from bertd_server.models.default_model import NoDefaultModelError, ensure_bundle

    try:
        return bundle or ensure_bundle()
    except NoDefaultModelError as error:
        raise click.ClickException(str(error)) from error


def _finish(report: _Report, render: Callable[[_Report], str], json_path: Path | None) -> None:
    click.echo(render(report))
    if json_path is not None:
        json_path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


@click.command("engine-docs")
@click.option(
    "--results",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("benchmarks/results"),
    show_default=True,
    help="Folder of the JSON files of these commands.",
)
@click.option(
    "--document",
    "path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("docs/lab/engine.md"),
    show_default=True,
    help="The file to rewrite.",
)
def engine_docs(results: Path, path: Path) -> None:
    """Write the results of these commands into the document on the engine."""
    from bertd_bench.docs import documents
    from bertd_bench.engine import results as written

    documents.rewrite(path, lambda text: written.rewrite(text, results))


COMMANDS = (attention, engine, arrangements, memory, identity, engine_docs)
