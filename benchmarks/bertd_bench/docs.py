"""`bertd bench docs` writes the measured parts of documents, each from its committed results.

Each room names its own parts in its module `document`::

    room/document.py: SECTIONS ─┐
    benchmarks/results ─────────┴─render──> Markdown ──> <!-- measured: NAME --> … /measured
"""

from __future__ import annotations

import os
import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path

import click

import bertd_bench

RESULTS = Path("benchmarks/results")  # below the project's root
END = "<!-- /measured -->"


@dataclass(frozen=True, slots=True)
class Section:
    """A measured part of a document.

    Attributes:
        document: path below the project's root, such as docs/lab/load.md.
        name: that its comment `<!-- measured: NAME -->` has.
        render: from the folder of results to Markdown.
    """

    document: str
    name: str
    render: Callable[[Path], str]


def link_to_result(name: str, document: str) -> str:
    """A result's path as a document links to it, both below the project's root."""
    return Path(os.path.relpath(RESULTS / name, Path(document).parent)).as_posix()


def begin(name: str) -> str:
    """The comment that opens a part."""
    return f"<!-- measured: {name} -->"


def sections() -> list[Section]:
    """The sections of every room that has a module `document`; no other is imported."""
    rooms = pkgutil.iter_modules(bertd_bench.__path__, "bertd_bench.")
    named = [f"{room.name}.document" for room in rooms if room.ispkg]
    return [part for name in named if util.find_spec(name) for part in import_module(name).SECTIONS]


def names(text: str) -> list[str]:
    """Of the measured parts of a document."""
    return re.findall(r"<!-- measured: (.*?) -->", text)


def replaced(text: str, name: str, section: str) -> str:
    """The document with another section between the two comments.

    Raises:
        ValueError: a comment is missing, or the first is there more than once.
    """
    opening = begin(name)
    before, found, rest = text.partition(opening)
    old, closed, after = rest.partition(END)
    if not found or not closed or opening in rest or names(old):
        raise ValueError(f"the document needs one pair of lines {opening} and {END}")
    return f"{before}{opening}\n\n{section.strip()}\n\n{END}{after}"


def rewritten(root: Path, results: Path, of: Sequence[Section]) -> dict[Path, tuple[str, str]]:
    """What each document says, and what it should say.

    Args:
        root: of the project.
        results: the folder of JSON files.
        of: the sections to write.

    Raises:
        OSError: a document or a result cannot be read.
        ValueError: a result is none, or a document lacks a comment; the message names the file.
    """
    grouped: dict[str, list[Section]] = defaultdict(list)
    for section in of:
        grouped[section.document].append(section)
    found = {}
    for document, parts in sorted(grouped.items()):
        before = after = (root / document).read_text(encoding="utf-8")
        for part in parts:
            try:
                after = replaced(after, part.name, part.render(results))
            except ValueError as error:
                raise ValueError(f"{document}, {part.name}: {error}") from error
        found[root / document] = (before, after)
    return found


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a document is stale.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Folder of the project. Default: the working directory.",
)
def docs(check: bool, root: Path) -> None:
    """Write every measured part of README.md and docs/ from benchmarks/results.

    A part stands between `<!-- measured: NAME -->` and `<!-- /measured -->`.
    """
    try:
        found = rewritten(root, root / RESULTS, sections())
    except OSError as error:
        where = f"{root.resolve()} is no checkout of bertd: it has no {error.filename}"
        raise click.ClickException(f"{where}; name one with --root") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    stale = [path.relative_to(root) for path, (before, after) in found.items() if before != after]
    if check:
        if stale:
            raise click.ClickException(
                f"stale: {', '.join(map(str, stale))}; `bertd bench docs` writes them"
            )
        return
    for path, (_, after) in found.items():
        path.write_text(after, encoding="utf-8")
        name = path.relative_to(root)
        click.echo(f"{name} is {'rewritten' if name in stale else 'unchanged'}")
