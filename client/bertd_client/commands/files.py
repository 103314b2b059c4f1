"""Parquet files as the input of a command: a model of this process reads them, without a server.

What computes is not the client's: it is found by its entry point, as the sub-commands of the other
packages are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

_GROUP, _NAME = "bertd.files", "map"
_FILES = ("input", "bundle", "text_column", "columns", "rows_per_file", "lanes")
_BOTH = (
    "output",
    "long_text",
    "truncation_side",
    "stride",
    "prompt_name",
    "dimensions",
    "output_dtype",
    "ranges",
    "max_active_dims",
)
"""Options that mean the same with a server and without."""

_Function = TypeVar("_Function", bound=Callable[..., None])


class _Step(Protocol):
    """How far a job is, in rows."""

    total: int
    there: int
    written: int
    errors: int


def _listed(ctx: click.Context, param: click.Parameter, given: str | None) -> list[str] | None:
    """Names between commas."""
    del ctx, param
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]


def file_options(function: _Function) -> _Function:
    """Those of a command that reads Parquet files."""
    for option in (
        click.option(
            "--input",
            multiple=True,
            type=click.Path(path_type=Path, exists=True),
            help="Parquet file, or folder of them, to read without a server; may be repeated. "
            "--output is a folder then; the same command again goes on where this one was stopped.",
        ),
        click.option(
            "--bundle",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Model for --input.  [default: that of bertd serve]",
        ),
        click.option("--text-column", help="Of --input, with the texts.  [default: text]"),
        click.option(
            "--columns",
            metavar="NAME,…",
            callback=_listed,
            help="Of --input, to keep beside the texts and what is computed.  [default: all]",
        ),
        click.option(
            "--rows-per-file",
            type=click.IntRange(min=1),
            default=8192,
            show_default=True,
            help="Of the files in the folder --output, at most; what a stop may cost.",
        ),
        click.option(
            "--lanes",
            type=click.IntRange(min=1),
            help="Threads that compute, for --input.  [default: one on each core]",
        ),
    ):
        function = option(function)
    return function


def reads_files(task: str, texts: tuple[str, ...], options: dict[str, Any]) -> bool:
    """Take the options of files out of a command's, and run it if they name files.

    Args:
        task: "embed" or "embed_sparse".
        texts: arguments of the command.
        options: of the command; those of files are removed.

    Returns:
        whether files were read; else it is a command for a server.

    Raises:
        click.UsageError: options do not go together.
    """
    own = {name: options.pop(name) for name in _FILES}
    given = [name for name in (*_FILES, *options) if _was_given(name)]
    if not own["input"]:
        for name in given:
            if name in _FILES:
                raise click.UsageError(f"{_flag(name)} goes with --input")
        return False
    if texts:
        raise click.UsageError("--input reads files: give no texts as arguments")
    for name in given:
        if name not in _FILES + _BOTH:
            raise click.UsageError(f"{_flag(name)} is for a server, and --input asks none")
    if options["output"] is None:
        raise click.UsageError("--input needs --output DIR, a folder for what is computed")
    folder = options["output"]
    if folder.exists() and not folder.is_dir():
        raise click.UsageError(f"--output {folder} is a file: --input writes into a folder")
    asked = {
        name: options[name] for name in _BOTH if name != "output" and options.get(name) is not None
    }
    asked["text"] = own["text_column"] or "text"
    _run(
        _mapper()(
            task,
            own["input"],
            folder,
            bundle=own["bundle"],
            lanes=own["lanes"],
            columns=own["columns"],
            rows_per_file=own["rows_per_file"],
            options=asked,
        ),
        folder,
    )
    return True


def _run(steps: Iterator[_Step], folder: Path) -> None:
    """Draw how far it is; exit code 1 if a row has no answer."""
    from bertd_client.calling.progress import Progress
    from bertd_client.commands.running import ended_by_ctrl_c

    with ended_by_ctrl_c():
        step = next(steps)
        with Progress(step.total - step.there, "rows") as progress:
            done = 0
            for step in steps:
                progress.add(step.written - done)
                done = step.written
    click.echo(
        f"{folder}: {step.total:,} rows, {step.written:,} written now, {step.there:,} before, "
        f"{step.errors:,} with an error",
        err=True,
    )
    if step.errors:
        sys.exit(1)


def _mapper() -> Callable[..., Iterator[_Step]]:
    """What computes."""
    remedy = "--input needs the extras [parquet,server]: pip install 'bertd[parquet,server]'"
    for entry in entry_points(group=_GROUP, name=_NAME):
        try:
            found: Callable[..., Iterator[_Step]] = entry.load()
        except ImportError as error:
            raise click.ClickException(f"{remedy} ({error})") from error
        return found
    raise click.ClickException(remedy)


def _was_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _flag(name: str) -> str:
    return "--format" if name == "style" else f"--{name.replace('_', '-')}"
