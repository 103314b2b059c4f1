"""`bertd bench`: measurements on this machine.

Commands are imported when they are asked for; the help page is a table of this module alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click


class BenchCommand(NamedTuple):
    """One command.

    Attributes:
        target: where it is, as `module:name` below this package.
        help: its line on the help page.
    """

    target: str
    help: str


GROUPS: dict[str, dict[str, BenchCommand]] = {
    "bertd and its peers": {
        "compare": BenchCommand("compare.cli:compare", "How fast is bertd beside its peers?"),
        "load": BenchCommand("load.cli:load", "How many texts a second before answers come late?"),
    },
    "This machine": {
        "hardware": BenchCommand("hardware.cli:hardware", "What can its cores and memory do?")
    },
    "bertd itself": {
        "regress": BenchCommand("regression.cli:regress", "Slower than the committed baseline?"),
        "simulate": BenchCommand("scheduling.cli:simulate", "Schedulers compared, virtual time."),
        "exports": BenchCommand("exports.cli:exports", "Parity, size and speed of every export."),
        "footprint": BenchCommand("install.cli:footprint", "Installed size, imports, cold start."),
    },
    "Results": {
        "report": BenchCommand("report.cli:report", "One page of charts of committed results."),
        "docs": BenchCommand("docs:docs", "Write the measured parts of documents."),
        "diff": BenchCommand("regression.cli:diff", "Two results side by side."),
        "agree": BenchCommand("regression.cli:agree", "Do the ratios of two runs agree?"),
    },
}
COMMANDS = {name: found for group in GROUPS.values() for name, found in group.items()}


class _Commands(click.Group):
    """The commands of the table, in its groups."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx  # the same in any context
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].target.partition(":")
        command: click.Command = getattr(import_module(f"bertd_bench.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, found.help) for name, found in commands.items()])


@click.group(
    cls=_Commands,
    epilog="Begin with `bertd bench compare`. Let nothing else run meanwhile: results say how busy "
    "the machine was. `bertd bench COMMAND --help` has the options.",
)
def bench() -> None:
    """Measure bertd, and what it is compared with, on this machine."""
