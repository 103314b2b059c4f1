"""The flags of `bertd serve`, derived from the fields of Settings.

A field's name, type, bounds, default and description become a flag and its help. Flags are passed
on as words: :mod:`.configuration` checks values from every source in the same way.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from bertd.help import option_rows, write_groups
from click.core import ParameterSource

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


FIRST = (
    "address",
    "http_api",
    "repository",
    "name",
    "precision",
    "lanes",
    "memory_limit",
    "cache_folder",
    "api_keys",
    "config",
)
"""Flags that the help shows first."""


class SettingsCommand(click.Command):
    """A command with a flag for every setting.

    The flags are made when the command is used: the list of all commands needs no pydantic.
    """

    @cached_property
    def _flags(self) -> list[click.Option]:
        return settings_options()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and the flags."""
        return [*self._flags, *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The flags of :data:`FIRST`, then the command's own, then settings group by group."""
        from bertd_server.config.settings import GROUPS  # noqa: PLC0415 - pydantic loads slowly

        rows = option_rows(self, ctx)
        settings = {str(one.name) for one in self._flags}
        first = "Most used"
        groups: dict[str, list[str]] = {
            first: list(FIRST),
            "More of a checkpoint, and of this command": [
                name for name in rows if name not in settings and name not in FIRST
            ],
        }
        group = groups[first]
        for one in self._flags:
            name = str(one.name)
            if name in GROUPS:
                group = groups.setdefault(GROUPS[name], [])
            if name not in FIRST:
                group.append(name)
        write_groups(formatter, rows, groups, others="")


def given(context: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Those values that stand on the command line, not in the environment or in a default."""
    line = ParameterSource.COMMANDLINE
    return {k: v for k, v in values.items() if context.get_parameter_source(k) is line}


def flag(name: str) -> str:
    """How a setting is called on the command line."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """How a setting is called in the environment."""
    from bertd_server.config.settings import Settings  # noqa: PLC0415 - pydantic loads slowly

    return f"{Settings.model_config['env_prefix']}{name.upper()}"


def settings_options() -> list[click.Option]:
    """One option per field of Settings, in their order."""
    from bertd_server.config.settings import Settings  # noqa: PLC0415 - pydantic loads slowly

    return [_option(name, field) for name, field in Settings.model_fields.items()]


def _option(name: str, field: FieldInfo) -> click.Option:
    switch = field.annotation is bool
    return click.Option(
        [f"{flag(name)}/{flag(f'no_{name}')}" if switch else flag(name)],
        type=click.BOOL if switch else click.STRING,
        metavar=None if switch else _metavar(field),
        default=field.get_default(call_default_factory=True, validated_data={}),
        show_default=True,
        envvar=variable(name),
        show_envvar=True,
        help=field.description,
    )


def _metavar(field: FieldInfo) -> str:
    """What the help shows for a value, such as `INTEGER>=1`."""
    if get_origin(field.annotation) is Literal:
        return f"[{'|'.join(get_args(field.annotation))}]"
    if any(hasattr(rule, "func") for rule in field.metadata):  # the setting reads the text itself
        return "TEXT"
    least = next((f">={bound.ge}" for bound in field.metadata if hasattr(bound, "ge")), "")
    if field.annotation in {int, float}:
        return ("INTEGER" if field.annotation is int else "FLOAT") + least
    return "TEXT"
