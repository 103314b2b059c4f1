"""Measured numbers in documents: each section is written by the command that its comment names.

::

    result.json ──render──> Markdown ──replaced──> document, between two comments
"""

from __future__ import annotations

END = "<!-- /measured -->"
_MEASURED = "<!-- measured:"


def begin(command: str, what: str = "what follows") -> str:
    """The comment that opens a section which `bertd bench COMMAND` writes.

    Args:
        command: its name.
        what: tells the sections of one command in one document apart.
    """
    return f"{_MEASURED} `bertd bench {command}` writes {what} -->"


def replaced(document: str, opening: str, section: str) -> str:
    """The document with `section` between its opening comment and the next closing one.

    Raises:
        ValueError: a comment is missing, or the first is there more than once.
    """
    before, found, rest = document.partition(opening)
    old, closed, after = rest.partition(END)
    if not found or not closed or opening in rest or _MEASURED in old:
        raise ValueError(f"the document needs one pair of lines {opening} and {END}")
    return f"{before}{opening}\n\n{section}\n\n{END}{after}"
