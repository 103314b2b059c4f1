"""Which waiting texts make the next batch. Pure: no clock, no lock, no I/O.

The scheduler decides *when*; :func:`form_batch` decides *which*, from what waits at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A text that waits. Times are seconds on one monotonic clock."""

    @property
    def tokens(self) -> int:
        """Length of its sequence."""

    @property
    def deadline(self) -> float:
        """When its answer is no longer wanted; infinity if never."""


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch may grow. A single text larger than `tokens` still makes a batch."""

    tokens: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Decision(Generic[W]):
    """What becomes of the queue: `batch` and `expired` leave it, `remaining` stays, in order."""

    batch: list[W]
    expired: list[W]
    remaining: list[W]


def form_batch(waiting: Sequence[W], limits: Limits, now: float) -> Decision[W]:
    """Take texts in order of arrival until the next would break a limit.

    Texts past their deadline are set apart before they cost anything. A text is never overtaken:
    the batch is a prefix of the texts that are still wanted.
    """
    batch: list[W] = []
    expired: list[W] = []
    tokens = 0
    for index, text in enumerate(waiting):
        if text.deadline <= now:
            expired.append(text)
            continue
        full = len(batch) == limits.sequences or tokens + text.tokens > limits.tokens
        if batch and full:
            return Decision(batch, expired, list(waiting[index:]))
        batch.append(text)
        tokens += text.tokens
    return Decision(batch, expired, [])
