"""What documents refer to is there: commands with their flags, targets of make, files, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from bertd_client.cli import main
from helpers.markdown import DOCUMENTS
from helpers.paths import ROOT

HISTORY = ROOT / "CHANGELOG.md"  # names what has gone since
WRITTEN = (
    *DOCUMENTS,
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "RELEASING", "SECURITY")),
    HISTORY,
)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_commands_and_flags_exist(document: Path) -> None:
    text = "" if document == HISTORY else document.read_text(encoding="utf-8")
    wrong = {why for line in commands(text) if (why := unknown(line))}
    assert not wrong, f"{document}: {sorted(wrong)}"


def test_targets_of_make_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "" if document == HISTORY else document.read_text(encoding="utf-8")
    named = {
        target for line in re.findall(r"`make ([a-z][a-z -]*)`", text) for target in line.split()
    }
    assert named <= targets


def test_links_lead_somewhere(document: Path) -> None:
    prose = _FENCE.sub("", document.read_text(encoding="utf-8"))
    broken = [
        link for link in _LINK.findall(prose) if "://" not in link and not found(document, link)
    ]
    assert not broken


def test_unknown_says_what_is_wrong() -> None:
    assert unknown("bertd serve DIR --address X") == ""
    assert unknown("bertd servé") == "bertd servé: no such command"
    assert unknown("bertd serve --adress X") == "bertd serve: no option --adress"
    assert unknown("bertd bench compare --rounds 9") == ""


def commands(text: str) -> Iterator[str]:
    """Lines of blocks, and code in sentences, that begin with `bertd`."""
    for fence in _FENCE.findall(text):
        joined = fence.replace("\\\n", " ")
        yield from (line.strip() for line in joined.split("\n"))
    yield from _SPAN.findall(_FENCE.sub("", text))


def unknown(line: str) -> str:
    """What `bertd` would not know of a command; "" if it is none, or it knows everything."""
    words = re.sub(r"^(\.venv/bin/|[A-Z_]+=\S+ )+", "", line)
    if not re.match(r"bertd [a-z]", words):
        return ""
    try:
        parts = shlex.split(words.partition(" | ")[0], comments=True)[1:]
    except ValueError:  # an apostrophe: a sentence
        return ""
    command: click.Command = main
    name = "bertd"
    context = click.Context(main)
    while (
        isinstance(command, click.Group) and parts and re.fullmatch(r"[^\W\d_A-Z][\w-]*", parts[0])
    ):
        word = parts.pop(0)
        name += f" {word}"
        inner = command.get_command(context, word)
        if inner is None:
            return f"{name}: no such command"
        command = inner
    parameters = command.get_params(context)
    known = {flag for one in parameters for flag in (*one.opts, *one.secondary_opts)}
    for part in parts:
        flag = part.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z0-9-]*", flag) and flag not in {*known, "--help"}:
            return f"{name}: no option {flag}"
    return ""


def found(document: Path, link: str) -> bool:
    """Whether there is such a file, and such a heading in it."""
    path, _, heading = link.partition("#")
    target = document.parent / path if path else document
    if not target.exists():
        return False
    if not heading or target.suffix != ".md":
        return True
    lines = _FENCE.sub("", target.read_text(encoding="utf-8")).split("\n")
    return heading in {anchor(line) for line in lines if line.startswith("#")}


def anchor(line: str) -> str:
    """The name that GitHub gives a heading."""
    title = re.sub(r"[`*]|\]\([^)]*\)|\[", "", line.lstrip("#").strip()).lower()
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
