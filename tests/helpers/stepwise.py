"""Jobs of the executor, done here and now."""

from __future__ import annotations

from typing import TypeVar

from bertd_server.scheduling.executor import Steps

T = TypeVar("T")


def done(steps: Steps[T]) -> T:
    """The value of some steps."""
    return counted(steps)[0]


def counted(steps: Steps[T]) -> tuple[T, int]:
    """The value of some steps, and how many parts they were in."""
    count = 1
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            value: T = ended.value
            return value, count
        count += 1
