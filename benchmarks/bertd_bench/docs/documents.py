"""What commands that write results into documents share; errors are click's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def link(path: Path, document: Path) -> str:
    """A file's path as a document links to it."""
    return Path(os.path.relpath(path, document.parent)).as_posix()


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line why a result or a document cannot be read, written or understood.

    Raises:
        click.ClickException: in the place of OSError and ValueError.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def rewrite(document: Path, change: Callable[[str], str]) -> None:
    """Write a document anew, and say whether that changed it.

    Raises:
        click.ClickException: it cannot be read or written, or `change` has refused.
    """
    with explained():
        before = document.read_text(encoding="utf-8")
        after = change(before)
    document.write_text(after, encoding="utf-8")
    click.echo(f"{document} is {'unchanged' if after == before else 'rewritten'}")
