"""Measured numbers in documents: each section is written by the command that its comment names.

::

    result.json ──render──> Markdown ──replaced──> document, between two comments
"""

from __future__ import annotations

END = "<!-- /measured -->"


def begin(command: str) -> str:
    """The comment that opens the section which `bertd bench COMMAND` writes."""
    return f"<!-- measured: `bertd bench {command}` writes what follows -->"


def replaced(document: str, command: str, section: str) -> str:
    """The document with `section` between the two comments of a command.

    Raises:
        ValueError: a comment is missing, or the first is there more than once.
    """
    opening = begin(command)
    before, found, rest = document.partition(opening)
    old, closed, after = rest.partition(END)
    if not found or not closed or opening in rest or "<!-- measured:" in old:
        raise ValueError(f"the document needs one pair of lines {opening} and {END}")
    return f"{before}{opening}\n\n{section}\n\n{END}{after}"
