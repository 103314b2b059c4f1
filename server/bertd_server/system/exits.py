"""How `bertd serve` ends; docs/operations.md says what to do about each."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. A process that a second signal has ended has 128 + its number."""

    FINISHED = 0
    """Everything that was taken has ended."""

    CANNOT_START = 1
    """No bundle, no memory, no address."""

    MISUSED = 2
    """A flag, a variable or the file is wrong."""

    CANCELLED = 3
    """Calls were cancelled when the time of the drain was up."""

    NEVER_ENDED = 4
    """A batch still ran when the time of the drain was up."""

    RESTART = 75
    """The server wants to be restarted: a lane was stuck, or memory beyond its limit."""
