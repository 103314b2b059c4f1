"""The ``bertd`` command.

Its sub-commands are the client's own, and the entry points of the group ``bertd.commands``, which
each package brings. One whose extra is not installed still shows in the help, with the remedy.
"""

from __future__ import annotations

import errno
import signal
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, NoReturn

import bertd
import click
from bertd.help import write_groups

from bertd_client.commands import COMMANDS

ENTRY_POINTS = "bertd.commands"
GROUPS = {
    "Serve": ("serve", "export", "keys"),
    "Ask a server": (
        *("models", "tokenize", "count", "embed", "classify", "zero-shot"),
        *("tag", "answer", "fill", "rerank"),
    ),
    "Look at a bundle": ("inspect", "verify"),
    "Measure": ("bench",),
}
"""The commands, as the help shows them."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class _Commands(click.Group):
    """A group with commands of other packages, which are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx  # the same in any context
        return sorted({*self.commands, *_entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        entry = _entries().get(cmd_name)
        if own is not None or entry is None:
            return own
        try:
            command: click.Command = entry.load()
        except ImportError as error:
            if not _is_missing_extra(entry, error):
                raise
            return _unloadable(entry, error)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their groups."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = {name: (name, one.get_short_help_str(100)) for name, one in found.items() if one}
        write_groups(formatter, rows, GROUPS, others="Other commands")

    def invoke(self, ctx: click.Context) -> Any:
        # Commands put off heavy imports until they run, so a missing extra may show only here.
        try:
            return super().invoke(ctx)
        except ImportError as error:
            entry = _entries().get(ctx.invoked_subcommand or "")
            if entry is None or not _is_missing_extra(entry, error):
                raise
            raise click.ClickException(_hint(entry, error)) from error
        except KeyboardInterrupt:
            click.echo("Aborted!", err=True)
            ctx.exit(128 + signal.SIGINT)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = error.filename or "what this command writes to"
            raise click.ClickException(f"{where} cannot be written: {error.strerror}") from error


def _entries() -> dict[str, EntryPoint]:
    """By name; those whose package is not in this installation, as benchmarks, are left out."""
    found = entry_points(group=ENTRY_POINTS)
    packages = {entry.module.partition(".")[0] for entry in found}
    there = {package for package in packages if find_spec(package) is not None}
    return {entry.name: entry for entry in found if entry.module.partition(".")[0] in there}


def _is_missing_extra(entry: EntryPoint, error: ImportError) -> bool:
    """Whether a third-party module is missing; a broken import of our own is a bug to show."""
    package = (error.name or "").partition(".")[0]
    return bool(entry.extras) and package != "bertd" and not package.startswith("bertd_")


def _remedy(entry: EntryPoint) -> str:
    extra = ",".join(entry.extras)
    return f"needs the extra [{extra}]: pip install 'bertd[{extra}]'"


def _hint(entry: EntryPoint, error: ImportError) -> str:
    return f"bertd {entry.name} {_remedy(entry)} ({error})"


def _unloadable(entry: EntryPoint, error: ImportError) -> click.Command:
    message = _hint(entry, error)

    def refuse(**_: object) -> NoReturn:
        raise click.ClickException(message)

    return click.Command(
        entry.name,
        callback=refuse,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
        short_help=_remedy(entry),
    )


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with `bertd serve`, and `bertd embed "
    "TEXT` in another terminal. `bertd COMMAND --help` has the options.",
)
@click.version_option(bertd.__version__, prog_name="bertd")
def main() -> None:
    """Serve BERT-family encoders over gRPC, and talk to such a server."""


for _command in COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main()
