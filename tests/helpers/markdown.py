"""Code blocks of the documents, and what they are said to print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from helpers.paths import ROOT

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LAB = ROOT / "docs" / "lab"  # its README says that its commands are not run

_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXCUSE = re.compile(r"\A# [Nn]ot run by the tests: ")
_PYTHON_OR_SHELL = ("sh", "python")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        document: it is in.
        line: of its fence, from 1.
        language: that its fence names, "" for none.
        text: between the fences.
        prints: text of the block right below it, if that names no language.
    """

    document: Path
    line: int
    language: str
    text: str
    prints: str | None = None

    @property
    def is_program(self) -> bool:
        """Whether it is for a shell or for Python."""
        return self.language in _PYTHON_OR_SHELL

    @property
    def is_run(self) -> bool:
        """Whether the tests run it; one that they do not says so in its first line."""
        return (
            self.is_program
            and not _EXCUSE.match(self.text)
            and not self.document.is_relative_to(LAB)
        )

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Those of a document, in order."""
    source = document.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0  # of the block before
    for fence in _FENCE.finditer(source):
        language, text = fence["language"], fence["text"]
        line = source.count("\n", 0, fence.start()) + 1
        if (
            found
            and not language
            and found[-1].is_program
            and not source[end : fence.start()].strip()
        ):
            before = found[-1]
            found[-1] = Block(before.document, before.line, before.language, before.text, text)
        found.append(Block(document, line, language, text))
        end = fence.end()
    return found
