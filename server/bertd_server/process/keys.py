"""`bertd keys`: makes API keys for `bertd serve --api-keys`."""

from __future__ import annotations

import re
from datetime import datetime

import click


@click.group()
def keys() -> None:
    """Make API keys for `bertd serve --api-keys FILE`."""


@keys.command()
@click.option("--id", "id_", required=True, help="Name of the key, which logs show.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["infer", "manage"]),
    multiple=True,
    default=("infer",),
    show_default=True,
    help="What it is for; may be given twice.",
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Until when it counts, UTC.  [default: no end]",
)
def new(id_: str, scopes: tuple[str, ...], expires: datetime | None) -> None:
    """Print a new key, once, and the lines to add to the file.

    The key goes to standard output, the lines for the file to standard error, where all else is a
    comment: `2>>keys.toml` adds them. The file has a hash of the key alone.
    """
    from datetime import UTC
    from typing import cast

    from bertd_server.security.keys import ID, lines_for, new_key
    from bertd_server.security.scopes import Scope

    if not re.fullmatch(ID.strip("^$"), id_):
        raise click.BadParameter(
            f"{id_!r}: use small letters, digits, '.' and '-', at most 64, a letter or digit first",
            param_hint="--id",
        )
    key = new_key(id_)
    until = expires and expires.replace(tzinfo=UTC)
    click.echo(key)
    click.echo("# Give the key to the caller; it is not shown again.", err=True)
    click.echo("# Add these lines to the file of --api-keys:", err=True)
    click.echo(lines_for(key, id_, cast("frozenset[Scope]", frozenset(scopes)), until), err=True)
