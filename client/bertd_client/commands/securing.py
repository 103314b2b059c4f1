"""The options of TLS and keys, of every command that connects.

They are kept in the command's context, so that commands need not hand them on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bertd_client.connection.security import Security

_Function = TypeVar("_Function", bound=Callable[..., None])
_KEPT = "bertd_client.security"


def security_options(function: _Function) -> _Function:
    """How to be sure of the server, and it of the caller."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for flags, more in (
        (("--tls", "tls"), {"is_flag": True, "help": "Use TLS, with public CAs or --ca."}),
        (("--ca", "ca"), {"type": file, "help": "PEM of CAs of the server; TLS."}),
        (("--cert", "certificate"), {"type": file, "help": "PEM of a client's certificate; TLS."}),
        (("--key", "key"), {"type": file, "help": "PEM of its private key."}),
        (
            ("--api-key", "api_key"),
            {
                "envvar": "BERTD_API_KEY",
                "show_envvar": True,
                "help": "Key for the server; others on this machine can see a flag, so better in "
                "the variable.",
            },
        ),
    ):
        function = _option(flags, more)(function)
    return function


def _option(flags: tuple[str, str], more: dict[str, Any]) -> Callable[[_Function], _Function]:
    return click.option(*flags, expose_value=False, callback=_keep, **more)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        ctx.meta.setdefault(_KEPT, {})[param.name] = value


def given_security() -> Security:
    """What the running command was given.

    Raises:
        click.UsageError: a certificate without its key, or the other way round.
    """
    from bertd_client.connection.security import Security

    try:
        return Security(**click.get_current_context().meta.get(_KEPT, {}))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
