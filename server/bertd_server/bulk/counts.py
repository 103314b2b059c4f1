"""What a job from files to files has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BulkCounts:
    """Rows of a job that may have been run before.

    Attributes:
        read: of the source.
        skipped: of them, that an earlier run had written.
        written: by this one.
        errors: in the target, that have an error in place of an answer.
    """

    read: int
    skipped: int
    written: int
    errors: int
