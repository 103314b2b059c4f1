"""The flags of `bertd serve`, derived from the fields of Settings.

A field's name, type, lower bound, default and description become a flag and its BERTD_ variable;
a flag wins over the variable, which wins over the default.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


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


def settings_options() -> list[click.Option]:
    """One option per field of Settings, in their order."""
    from bertd_server.settings import Settings  # noqa: PLC0415 - pydantic loads slowly

    prefix = Settings.model_config["env_prefix"]
    return [
        click.Option(
            [f"--{name.replace('_', '-')}"],
            type=_type(field),
            is_flag=field.annotation is bool,
            default=field.get_default(call_default_factory=True, validated_data={}),
            show_default=True,
            envvar=f"{prefix}{name.upper()}",
            show_envvar=True,
            help=field.description,
        )
        for name, field in Settings.model_fields.items()
    ]


def _type(field: FieldInfo) -> click.ParamType[Any]:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    if any(hasattr(rule, "func") for rule in field.metadata):  # the setting reads the text itself
        return click.STRING
    least = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None)
    if field.annotation is int:
        return click.IntRange(min=least)
    if field.annotation is float:
        return click.FloatRange(min=least)
    given = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    return click.types.convert_type(given[0] if given else field.annotation)  # Path | None
