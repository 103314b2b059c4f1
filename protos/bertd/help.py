"""Help of commands in groups: what a command is about first, what all share after it.

::

    a command's options ──rows──> its own ──> groups, by the table of its package
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

HelpRow = tuple[str, str]
Groups = Mapping[str, Sequence[str]]
"""Titles, and the names of parameters, or of commands, in their order."""


class GroupedCommand(click.Command):
    """A command whose help has its own options first, then groups of those that others have too."""

    def __init__(self, *args: Any, groups: Groups, **more: Any) -> None:
        """A command as click has it.

        Args:
            args: of click.
            groups: by name of parameter; one that is not there is passed over.
            more: of click.
        """
        super().__init__(*args, **more)
        self._groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their groups."""
        write_groups(formatter, option_rows(self, ctx), self._groups, others="Options")


def option_rows(command: click.Command, ctx: click.Context) -> dict[str, HelpRow]:
    """What the help says of each option that it shows, by name."""
    return {
        str(one.name): row
        for one in command.get_params(ctx)
        if isinstance(one, click.Option) and (row := one.get_help_record(ctx)) is not None
    }


def write_groups(
    formatter: click.HelpFormatter, rows: Mapping[str, HelpRow], groups: Groups, *, others: str
) -> None:
    """Write rows in groups, those of none first.

    Args:
        formatter: that writes.
        rows: by name.
        groups: the names of each.
        others: title of the rest.
    """
    grouped = {name for names in groups.values() for name in names}
    rest = [name for name in rows if name not in grouped]
    for title, names in ({others: rest} | dict(groups)).items():
        shown = [rows[name] for name in names if name in rows]
        if shown:
            with formatter.section(title):
                formatter.write_dl(shown)
