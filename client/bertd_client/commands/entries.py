"""What a command is asked about: arguments, lines of standard input, or JSON lines.

::

    TEXT...             {"text": ...} each
    - (or a pipe)       {"text": ...} for each line
    --jsonl             each line is an object with the task's fields; its others come back with
                        the answer, so that an "id" finds its way

A line that is no such object is an entry with a problem; the others go on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

T = TypeVar("T")

TEXTS = click.argument("texts", metavar="[TEXT]... | -", nargs=-1)
PAIRS = click.option("--pairs", is_flag=True, help="Each text is two, with a tab between them.")

_SHORT = 40


@dataclass(frozen=True, slots=True)
class CommandInput:
    """One input of a command."""

    name: str
    """Where it stands, such as "line 3"."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Those of the task, and whatever else a JSON line has."""
    problem: str = ""
    """Why it cannot be asked about; empty if it can."""

    @property
    def label(self) -> str:
        """The name with the beginning of its text, for people."""
        text = next((value for value in self.fields.values() if isinstance(value, str)), None)
        return self.name if text is None else f"{self.name} ({shortened(text)!r})"


def shortened(text: str, characters: int = _SHORT) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def entries(
    arguments: Sequence[str],
    *,
    jsonl: bool,
    fields: Sequence[str] = ("text",),
    pairs: bool = False,
    more: Mapping[str, str] | None = None,
) -> Iterator[CommandInput]:
    """The inputs of a command.

    Args:
        arguments: texts; none, or "-" alone, for standard input.
        jsonl: whether standard input has JSON lines.
        fields: those that a JSON line must have, as strings; texts become the first.
        pairs: whether each text is two, with a tab between them.
        more: fields that every text gets.

    Raises:
        click.UsageError: there is nothing to read, or too much.
    """
    if reads_stdin(arguments, jsonl=jsonl):
        lines = ((f"line {number}", line) for number, line in enumerate(stdin_lines(), 1))
        if jsonl:
            return (_parsed(name, line, fields) for name, line in lines)
    else:
        lines = ((f"argument {number}", text) for number, text in enumerate(arguments, 1))
    if pairs:
        return (_split(name, text) for name, text in lines)
    return (CommandInput(name, {fields[0]: text, **(more or {})}) for name, text in lines)


def reads_stdin(arguments: Sequence[str], *, jsonl: bool) -> bool:
    """Whether inputs come from standard input.

    Raises:
        click.UsageError: there is nothing to read, or too much.
    """
    if jsonl and tuple(arguments) not in {(), ("-",)}:
        raise click.UsageError("--jsonl reads standard input: give no texts as arguments")
    if not arguments and sys.stdin.isatty():
        raise click.UsageError("nothing to read: give texts, or - for standard input, a line each")
    return not arguments or tuple(arguments) == ("-",)


def stdin_lines() -> Iterator[str]:
    """Lines of standard input, which is UTF-8; what is not becomes lone surrogates."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _parsed(name: str, line: str, fields: Sequence[str]) -> CommandInput:
    found, problem = parsed_object(line)
    if problem:
        return CommandInput(name, {}, problem)
    wanted = " and ".join(f'"{one}"' for one in fields)
    for one in fields:
        if not isinstance(found.get(one), str):
            return CommandInput(name, found, f'"{one}" is not there, or no string: give {wanted}')
    if not isinstance(found.get("text_pair", ""), str):
        return CommandInput(name, found, '"text_pair" is no string: give one, or leave it out')
    return CommandInput(name, found)


def _split(name: str, text: str) -> CommandInput:
    first, tab, second = text.partition("\t")
    if not tab:
        problem = "no tab: with --pairs each text is two, with a tab between them"
        return CommandInput(name, {"text": text}, problem)
    return CommandInput(name, {"text": first, "text_pair": second})


def texts_of(records: Sequence[dict[str, Any]]) -> list[str]:
    """The texts of inputs."""
    return [record["text"] for record in records]


def texts_or_pairs(records: Sequence[dict[str, Any]]) -> list[str | tuple[str, str]]:
    """The texts of inputs, and the pairs of those that have two."""
    return [
        (record["text"], record["text_pair"]) if "text_pair" in record else record["text"]
        for record in records
    ]


def parsed_object(line: str) -> tuple[dict[str, Any], str]:
    """The object of a JSON line, or why there is none."""
    try:
        found = json.loads(line)
    except ValueError as error:
        return {}, f"no JSON ({error}): each line must be one object"
    if not isinstance(found, dict):
        return {}, f"a JSON {type(found).__name__}: each line must be one object"
    return found, ""
