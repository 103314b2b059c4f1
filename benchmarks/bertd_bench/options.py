"""Arguments and options that several commands of `bertd bench` have."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

_Command = TypeVar("_Command", bound=Callable[..., None])


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file that could not be written, before a minute of measuring."""
    del ctx, param
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.absolute().parent} is not a folder")
    return path


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Whole numbers above 0, with commas between them."""
    del ctx, param
    if value is None:
        return None
    try:
        found = tuple(dict.fromkeys(int(each) for each in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not whole numbers with commas between") from error
    if min(found) < 1:
        raise click.BadParameter(f"{value!r} has a number below 1")
    return found


class _Bundle(click.Path):
    """A folder with a manifest that can be read: anything else is refused before it is measured."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from bertd.bundle import BundleError, read_manifest  # noqa: PLC0415 - for this alone

        folder: Any = super().convert(value, param, ctx)
        try:
            read_manifest(folder)
        except BundleError as error:
            self.fail(str(error), param, ctx)
        return folder


BUNDLE = _Bundle(exists=True, file_okay=False, path_type=Path)
bundle = click.argument("bundle", required=False, type=BUNDLE)
"""BUNDLE: a folder; without it the embedded default model."""

model = click.option(
    "--model",
    metavar="DIR",
    help="A checkpoint with mean pooling and normalising. Default: all-MiniLM-L6-v2.",
)

threads = click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")

json_path = click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    help="Also write the results, raw samples included.",
)


def rounds(default: int, least: int = 1) -> Callable[[_Command], _Command]:
    """`--rounds`: turns of each contestant."""
    return click.option(
        "--rounds", type=click.IntRange(min=least), default=default, show_default=True
    )


def seconds(default: float, least: float = 0, help: str = "") -> Callable[[_Command], _Command]:  # noqa: A002 - click's word
    """`--seconds`: of each measurement."""
    return click.option(
        "--seconds",
        type=click.FloatRange(min=least),
        default=default,
        show_default=True,
        help=help or None,
    )


def numbers(name: str, default: str | None, help: str) -> Callable[[_Command], _Command]:  # noqa: A002 - click's word
    """Whole numbers above 0, with commas between them."""
    return click.option(
        name, type=str, callback=_numbers, default=default, show_default=True, help=help
    )


def accept_noise(command: _Command) -> _Command:
    """`--accept-noise`: measure though others are at work; see :func:`tries_when_quiet`."""
    said = "Measure while others use these cores, and keep turns that they disturb."
    return click.option("--accept-noise", is_flag=True, help=said)(command)


def tries_when_quiet(accept: bool) -> int:
    """Tries of a turn; unless noise is accepted this waits for others to end.

    Raises:
        click.ClickException: they do not.
    """
    from bertd_bench.harness import machine, noise  # noqa: PLC0415 - they import numpy

    if accept:
        return 1
    try:
        noise.wait_until_quiet(machine.describe(1).affinity or [0], progress)
    except noise.BusyError as error:
        raise click.ClickException(str(error)) from error
    return noise.TRIES


def progress(line: str) -> None:
    """Say what is being measured, beside the results."""
    click.echo(line, err=True)


def command_line(bundles: Iterable[Path] = ()) -> str:
    """The command that runs, without paths of interpreters and results, nor those of bundles."""
    left = [each for each in sys.argv[1:] if Path(each) not in bundles]
    for option in ("--peers-python", "--json"):
        while option in left:
            at = left.index(option)
            del left[at : at + 2]
    return shlex.join(["bertd", *left, *("BUNDLE" for _ in bundles)])


def conclude(
    result: BaseModel, text: str, json_path: Path | None, noise: Iterable[str] = ()
) -> None:
    """Print what was found, why it is not to be believed first; write it where `--json` says."""
    from bertd_bench.harness import results  # noqa: PLC0415 - it imports pydantic

    reasons = list(dict.fromkeys(noise))
    if reasons:
        click.echo(f"NOISY, so believe no ratio below: {'; '.join(reasons)}\n")
    click.echo(text)
    if json_path is not None:
        progress(f"{results.write(result, json_path)} is written")
